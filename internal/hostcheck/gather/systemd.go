package gather

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/coreos/go-systemd/v22/dbus"

	"nodeagent/internal/hostcheck"
)

// systemd asks the service manager about the units that matter, where it is
// PID 1.
func (g *gatherer) systemd(ctx context.Context) (see, error) {
	if comm, err := text("/proc/1/comm"); err != nil || comm != "systemd" {
		return nil, err
	}
	conn, err := dbus.NewWithContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to systemd: %w", err)
	}
	defer conn.Close()
	s := &hostcheck.Systemd{Units: map[string]hostcheck.Unit{}, RunDir: g.RunDir, TmpfilesOK: makesAtBoot(g.RunDir)}
	var errs []error
	for _, name := range hostcheck.Units() {
		u, loaded, err := unit(ctx, conn, name)
		errs = append(errs, err)
		if loaded {
			s.Units[name] = u
		}
	}
	return func(f *hostcheck.Facts) { f.Systemd = s }, errors.Join(errs...)
}

func unit(ctx context.Context, conn *dbus.Conn, name string) (u hostcheck.Unit, loaded bool, err error) {
	p, err := conn.GetUnitPropertiesContext(ctx, name)
	if err != nil {
		return u, false, fmt.Errorf("ask systemd about %s: %w", name, err)
	}
	if word(p["LoadState"]) != "loaded" {
		return u, false, nil
	}
	u.Enabled = strings.HasPrefix(word(p["UnitFileState"]), "enabled") || word(p["UnitFileState"]) == "static"
	u.Conflicts, _ = p["Conflicts"].([]string)
	if p, err = conn.GetUnitTypePropertiesContext(ctx, name, "Service"); err != nil {
		return u, true, fmt.Errorf("ask systemd about %s: %w", name, err)
	}
	u.KillMode, u.Preserve = word(p["KillMode"]), word(p["RuntimeDirectoryPreserve"])
	u.RuntimeDirectory, _ = p["RuntimeDirectory"].([]string)
	for _, setting := range isolating {
		if on(p[setting]) {
			u.Isolating = append(u.Isolating, setting)
		}
	}
	return u, true, nil
}

// isolating are the settings that give a service a mount namespace of its own
// (systemd.exec(5)).
var isolating = []string{
	"PrivateTmp", "PrivateDevices", "PrivateMounts", "ProtectSystem", "ProtectHome", "ProtectProc", "ProcSubset",
	"ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups",
	"ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "BindPaths", "BindReadOnlyPaths", "TemporaryFileSystem",
	"RootDirectory", "RootImage", "DynamicUser",
}

func word(v any) string {
	s, _ := v.(string)
	return s
}

// on tells that a setting is not at what changes nothing.
func on(v any) bool {
	switch v := v.(type) {
	case bool:
		return v
	case string:
		return v != "" && v != "no" && v != "default" && v != "all" && v != "false"
	case []string:
		return len(v) > 0
	case [][]any:
		return len(v) > 0
	}
	return false
}
