package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/cgroups"
	"nodeagent/internal/config"
	"nodeagent/internal/cri"
	"nodeagent/internal/cri/image"
	"nodeagent/internal/diag"
	"nodeagent/internal/durable"
	"nodeagent/internal/pod"
	"nodeagent/internal/pod/validate"
	"nodeagent/internal/probe"
	"nodeagent/internal/source"
	"nodeagent/internal/volume"
)

// addVerbs adds the verbs that show the node.
func addVerbs(root *cobra.Command) {
	root.AddGroup(&cobra.Group{ID: groupShow, Title: "Look at the node:"}, &cobra.Group{ID: groupAct, Title: "Work with containers, images and the daemon:"})
	for group, verbs := range map[string][]*cobra.Command{
		groupShow: {podsCommand(), psCommand(), explainCommand(), inspectCommand(), logsCommand(), statsCommand(), checkCommand(), configCommand()},
		groupAct:  {execCommand(), imagesCommand(), reloadCommand(), restartCommand()},
	} {
		for _, v := range verbs {
			v.GroupID = group
		}
		root.AddCommand(verbs...)
	}
	root.AddCommand(completionCommand(), exitCodesTopic())
	root.CompletionOptions.DisableDefaultCmd = true
}

const (
	groupShow = "show"
	groupAct  = "act"
)

func exitCodesTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "What the exit codes mean",
		Long: "The exit codes of nodeagent:\n" +
			"  0   done\n  1   failed\n  2   the command line cannot be understood\n" +
			"  3   a check found something\n  5   neither the daemon nor containerd can be reached\n" +
			"  6   there is no such pod, container, image or log\n  78  the configuration is invalid\n" +
			"exec ends with the exit code of the command that it ran, and 130 when it was interrupted.",
	}
}

const (
	// callTimeout bounds one question to containerd: somebody waits at a
	// terminal.
	callTimeout = 5 * time.Second
	// cliOwner names the leases of the command line, so that the daemon's sweep
	// leaves them alone.
	cliOwner = "nodeagent-cli"
)

// node is what a verb works with.
type node struct {
	cfg     *config.Config
	runtime *cri.Native
	eye     *diag.Eye
}

// openNode reads the configuration and prepares everything; nothing is asked of
// anybody yet. The caller closes it.
func openNode(flags config.Flags) (*node, error) {
	cfg, err := config.Load(flags)
	if err != nil {
		return nil, configError{err}
	}
	n := &node{cfg: cfg}
	if n.runtime, err = openRuntime(cfg, callTimeout); err != nil {
		return nil, err
	}
	n.eye, err = diag.New(diag.Config{
		Socket: n.socket(), Runtime: n.runtime, Manifests: n.manifests, NodeName: cfg.NodeName, Addrs: n.addrs(),
		Allowed: allowed(cfg), Cluster: cfg.Cluster != nil, Kept: n.kept,
		Health: n.health, HasImage: n.hasImage, Mounts: n.mountsOf,
	})
	if err != nil {
		return nil, errors.Join(err, n.runtime.Close())
	}
	return n, nil
}

// openRuntime prepares to talk to containerd, with a time for each question. The caller closes it.
func openRuntime(cfg *config.Config, timeout time.Duration) (*cri.Native, error) {
	r := cfg.Agent.Runtimes[""]
	store := imageConfig(cfg)
	store.Owner = cliOwner
	return cri.New(cri.Config{
		Address: cfg.Endpoint(), Runtime: r.Shim, RuncBinary: r.Binary, Snapshotter: r.Snapshotter,
		Handlers: handlers(cfg),
		RunDir:   cfg.Agent.RunDir, StateDir: cfg.Agent.StateDir,
		SeccompDir:  filepath.Join(cfg.RootDir, "seccomp"),
		Image:       store,
		CallTimeout: timeout,
	})
}

func (n *node) close() { _ = n.runtime.Close() }

func (n *node) socket() string { return filepath.Join(n.cfg.Agent.RunDir, "nodeagent.sock") }

// addrs are the node's addresses; not to know them hides nothing else.
func (n *node) addrs() []netip.Addr {
	addrs, _ := nodeAddrs(n.cfg.NodeIPs, nil, nil)
	return addrs
}

// manifests reads what the daemon would be asked for.
func (n *node) manifests(ctx context.Context, name string) (source.Snapshot, error) {
	return diag.ReadManifests(ctx, source.Config{
		Path: n.cfg.Kubelet.StaticPodPath, NodeName: name,
		Default: validate.Default, Validate: validatePod, Objects: fromFiles(n.cfg),
	})
}

// kept reads the pods of the API server that the daemon left.
func (n *node) kept() ([]*corev1.Pod, error) {
	dir, err := podCache(n.cfg)
	if err != nil {
		return nil, err
	}
	return source.ReadPodCache(dir)
}

// podCache is where the daemon keeps the API server's pods.
func podCache(cfg *config.Config) (*durable.Dir, error) {
	return durable.New(durable.Config{Path: filepath.Join(cfg.Agent.StateDir, "pods")})
}

// health reads the verdicts of probes that the daemon left.
func (n *node) health() (map[string]pod.Health, error) {
	left, err := probe.NewFiles(n.cfg.Agent.RunDir)
	if err != nil {
		return nil, err
	}
	return left.Peek()
}

func (n *node) hasImage(ctx context.Context, name string) (bool, error) {
	_, err := n.runtime.Images().Get(ctx, name)
	if image.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// mountsOf lists the mount points in the pod's directory.
func (n *node) mountsOf(uid types.UID) ([]string, error) { return volume.MountsOf(n.cfg.RootDir, uid) }

// tree is the cgroups of the node.
func (n *node) tree() (*cgroups.Tree, error) {
	return cgroups.New(cgroups.Config{Root: n.cfg.Kubelet.CgroupRoot, Driver: n.cfg.Kubelet.CgroupDriver})
}

// look looks at the node and tells what could not be asked.
func (n *node) look(cmd *cobra.Command) (*diag.View, error) {
	v, err := n.eye.Look(cmd.Context())
	if errors.Is(err, diag.ErrUnreachable) {
		return nil, unreachableError{fmt.Errorf("%w; is containerd at %s, and does --config name the daemon's file?", err, n.cfg.Endpoint())}
	}
	if err != nil {
		return nil, err
	}
	for _, note := range v.Notes {
		say(cmd, "%s", note)
	}
	return v, nil
}

// verb is a command that looks at the node.
func verb(cmd *cobra.Command, args cobra.PositionalArgs, run func(cmd *cobra.Command, n *node, args []string) error) *cobra.Command {
	var flags config.Flags
	configFlags(cmd, &flags)
	cmd.Args = usage(args)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		n, err := openNode(flags)
		if err != nil {
			return err
		}
		defer n.close()
		return classify(run(cmd, n, args))
	}
	if cmd.ValidArgsFunction == nil {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	return cmd
}

// usage makes the error of a check of arguments one of usage.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{fmt.Errorf("%w; see %q", err, cmd.CommandPath()+" --help")}
		}
		return nil
	}
}

// classify gives an error its exit code.
func classify(err error) error {
	var (
		missing   *diag.NotFoundError
		ambiguous *diag.AmbiguousError
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &missing):
		return notFoundError{err}
	case errors.As(err, &ambiguous):
		return usageError{err}
	}
	return err
}

// reach makes an error of containerd's one of reachability where that is it.
func (n *node) reach(err error) error {
	if err == nil || !cri.IsRetryable(err) || errors.Is(err, context.Canceled) {
		return err
	}
	return unreachableError{fmt.Errorf("containerd at %s does not answer: %w", n.cfg.Endpoint(), err)}
}

// short is an id as people compare it.
func short(id string) string {
	_, hex, ok := strings.Cut(id, ":")
	if !ok {
		hex = id
	}
	return hex[:min(12, len(hex))]
}

// containerState shows a container's state with what there is to say about it.
func containerState(c *diag.Container) string {
	switch {
	case c.State == "Exited" && c.ExitCode != nil && c.Reason != "":
		return fmt.Sprintf("Exited(%d,%s)", *c.ExitCode, c.Reason)
	case c.State == "Exited" && c.ExitCode != nil:
		return fmt.Sprintf("Exited(%d)", *c.ExitCode)
	case c.State == "Waiting" && c.Reason != "":
		return c.Reason
	}
	return c.State
}
