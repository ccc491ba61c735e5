package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"nodeagent/internal/config"
	"nodeagent/internal/diag"
)

func completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print the completion script of a shell",
		Long:  "Print a script that lets the shell complete nodeagent's verbs, flags, and names of pods and services.",
		Example: "  source <(nodeagent completion bash)\n" +
			"  nodeagent completion zsh > \"${fpath[1]}/_nodeagent\"",
		ValidArgs:             []string{"bash", "zsh", "fish", "powershell"},
		Args:                  usage(cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs)),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			root, out := cmd.Root(), cmd.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			}
			return root.GenPowerShellCompletionWithDesc(out)
		},
	}
}

// completeTimeout bounds what a Tab waits.
const completeTimeout = time.Second

// completePods completes the names of pods.
func completePods(cmd *cobra.Command) {
	complete(cmd, func(ctx context.Context, n *node) (all []string, err error) {
		view, err := n.eye.Look(ctx)
		if err != nil {
			return nil, err
		}
		for i := range view.Pods {
			all = append(all, view.Pods[i].Name, view.Pods[i].FullName())
		}
		return all, nil
	})
}

// completeServices completes the names of services that the daemon knows.
func completeServices(cmd *cobra.Command) {
	complete(cmd, func(ctx context.Context, n *node) (all []string, err error) {
		err = diag.Service(ctx, n.socket(), "", "", &all)
		return all, err
	})
}

// complete completes names. Where they cannot be had there are none.
func complete(cmd *cobra.Command, names func(context.Context, *node) ([]string, error)) {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		none := cobra.ShellCompDirectiveNoFileComp
		n, err := openNode(flagsOf(cmd))
		if err != nil {
			return nil, none
		}
		defer n.close()
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
		defer cancel()
		all, err := names(ctx, n)
		if err != nil {
			return nil, none
		}
		return all, none
	}
}

// flagsOf reads back what configFlags parsed.
func flagsOf(cmd *cobra.Command) config.Flags {
	get := func(name string) string {
		v, _ := cmd.Flags().GetString(name)
		return v
	}
	kubelet := map[string]string{}
	for _, f := range config.KubeletFlags() {
		if given := cmd.Flags().Lookup(f.Name); given != nil && given.Changed {
			kubelet[f.Name] = given.Value.String()
		}
	}
	return config.Flags{
		Kubelet: kubelet, Config: get("config"), ConfigDir: get("config-dir"), RootDir: get("root-dir"),
		PodManifestPath: get("pod-manifest-path"), HostnameOverride: get("hostname-override"),
		NodeIP: get("node-ip"), ContainerRuntimeEndpoint: get("container-runtime-endpoint"),
		Kubeconfig: get("kubeconfig"), BootstrapKubeconfig: get("bootstrap-kubeconfig"), CertDir: get("cert-dir"),
		NodeLabels: get("node-labels"), CloudProvider: get("cloud-provider"),
	}
}
