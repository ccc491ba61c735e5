package bed

import "strings"

// lacking are the capabilities that the daemon's unit takes away
// (CapabilityBoundingSet= in systemd/nodeagent.service; a test holds the two
// together), in the words of setpriv.
var lacking = []string{
	"sys_module", "sys_boot", "sys_time", "sys_rawio", "mac_override",
	"audit_control", "audit_read", "audit_write", "sys_pacct", "wake_alarm",
	"linux_immutable", "ipc_lock", "sys_tty_config", "block_suspend", "lease",
	"syslog", "bpf", "setpcap", "setuid", "setgid",
}

// confined is argv as the daemon's unit would run it: with its capabilities and
// its umask. So every test of a daemon also proves that these suffice. It keeps
// the process id.
func confined(argv []string) []string {
	return append([]string{"setpriv", "--bounding-set=-" + strings.Join(lacking, ",-"),
		"sh", "-c", `umask 0077; exec "$@"`, argv[0]}, argv...)
}
