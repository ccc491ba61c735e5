package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"nodeagent/internal/config"
	"nodeagent/internal/server"
)

func runCommand() *cobra.Command {
	var flags config.Flags
	var verbosity int
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon",
		Long: "Run the daemon: start the pods of the manifest directory and keep them running.\n" +
			"Ending it, however, touches no container; the next one adopts them.",
		Example: "  nodeagent run --config /etc/nodeagent/config.yaml\n" +
			"  nodeagent run --pod-manifest-path /etc/kubernetes/manifests -v 4",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(flags)
			if err != nil {
				return configError{err}
			}
			err = runDaemon(cmd.Context(), flags, cfg, newLogger(verbosity))
			if errors.Is(err, server.ErrReload) {
				return again(cmd.Context())
			}
			return err
		},
	}
	configFlags(cmd, &flags)
	cmd.Flags().IntVarP(&verbosity, "v", "v", 2, "verbosity of the log as kubelet's: 2 usual, 4 and more for debugging")
	return cmd
}

// configFlags adds the flags that say where the configuration is and what
// overrides it, under kubelet's names.
func configFlags(cmd *cobra.Command, f *config.Flags) {
	s := cmd.Flags()
	s.StringVar(&f.Config, "config", "", "file with KubeletConfiguration, KubeProxyConfiguration and NodeAgentConfiguration")
	s.StringVar(&f.ConfigDir, "config-dir", "", "directory of *.conf files laid over --config")
	s.StringVar(&f.RootDir, "root-dir", "", "directory of pods' state (default /var/lib/kubelet)")
	s.StringVar(&f.PodManifestPath, "pod-manifest-path", "", "directory, or file, of static pods (default /etc/kubernetes/manifests)")
	s.StringVar(&f.HostnameOverride, "hostname-override", "", "name of the node (default the host's name)")
	s.StringVar(&f.NodeIP, "node-ip", "", "addresses of the node, at most one of each family (default found on the host)")
	s.StringVar(&f.ContainerRuntimeEndpoint, "container-runtime-endpoint", "", "containerd's socket (default unix:///run/containerd/containerd.sock)")
	s.StringVar(&f.Kubeconfig, "kubeconfig", "", "file that says where the API server is and who this node is (default none: the node stands alone)")
	s.StringVar(&f.BootstrapKubeconfig, "bootstrap-kubeconfig", "", "file by which a first certificate is asked for; --kubeconfig is then written")
	s.StringVar(&f.CertDir, "cert-dir", "", "directory of the node's certificates (default pki below --root-dir)")
	s.StringVar(&f.NodeLabels, "node-labels", "", "labels of the node's registration, as key=value,...")
	s.StringVar(&f.CloudProvider, "cloud-provider", "", "\"external\" where a controller of the cloud tells the node's addresses")
	f.Kubelet = map[string]string{}
	for _, flag := range config.KubeletFlags() {
		added := s.VarPF(&kubeletFlag{flag, f.Kubelet}, flag.Name, "", "as kubelet's")
		added.Hidden = true // the file is the place for what they say
		if flag.Switch() {
			added.NoOptDefVal = "true"
		}
	}
}

// kubeletFlag is one of kubelet's flags that set a field of its configuration.
type kubeletFlag struct {
	config.KubeletFlag
	given map[string]string
}

func (f *kubeletFlag) String() string { return f.given[f.Name] }
func (f *kubeletFlag) Type() string   { return "value" }

// Set implements pflag.Value.
func (f *kubeletFlag) Set(text string) error {
	if err := f.Check(text); err != nil {
		return err
	}
	if had := f.given[f.Name]; had != "" && f.Many() {
		text = had + "," + text
	}
	f.given[f.Name] = text
	return nil
}

func newLogger(verbosity int) *slog.Logger {
	level := slog.LevelInfo
	if verbosity >= 4 {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

// runDaemon holds the lock while the daemon runs, so that there is one.
// It returns server.ErrReload when it is to run again.
func runDaemon(ctx context.Context, flags config.Flags, cfg *config.Config, log *slog.Logger) error {
	hangups := make(chan os.Signal, 1) // first of all: until then SIGHUP ends the process
	signal.Notify(hangups, syscall.SIGHUP)
	tuneMemory(cfg.Agent.MemoryLimitBytes)
	unlock, err := lockRunDir(cfg.Agent.RunDir)
	if err != nil {
		return err
	}
	defer unlock()
	for _, field := range cfg.Unused {
		log.Warn("ignore a field that this version does not act on", "field", field)
	}
	klog.SetSlogLogger(log) // what the API server's client has to say
	// After a reload the kernel calls the process "exe" (see again). Only a name.
	_ = os.WriteFile("/proc/self/comm", []byte("nodeagent"), 0)
	if err := refuse(ctx, cfg, log); err != nil {
		return err
	}
	d, err := newDaemon(cfg, log)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	d.reload = &reloader{flags: flags, cfg: cfg, log: log, end: end}
	d.parts = append(d.parts, part{"reload", func(ctx context.Context) error { return d.reload.on(ctx, hangups) }})
	log.Info("start", "version", version, "node", cfg.NodeName, "manifests", cfg.Kubelet.StaticPodPath)
	return d.run(ctx)
}
