package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"nodeagent/internal/cri/image"
	"nodeagent/internal/diag"
)

// imageList is the document of "images".
type imageList struct {
	diag.TypeMeta `json:",inline"`
	Items         []imageItem `json:"items"`
}

// imageItem is an image as the command line shows it.
type imageItem struct {
	Name        string   `json:"name"`
	ID          string   `json:"id"`
	Target      string   `json:"target"`
	RepoTags    []string `json:"repoTags"`
	RepoDigests []string `json:"repoDigests"`
	Size        int64    `json:"sizeBytes"`
	Platform    string   `json:"platform,omitempty"`
	User        string   `json:"user,omitempty"`
	Unpacked    bool     `json:"unpacked"`
	InUse       bool     `json:"inUse"`
	Pinned      bool     `json:"pinned"`
	Problem     string   `json:"problem,omitempty"`
}

func imagesCommand() *cobra.Command {
	var out format
	cmd := &cobra.Command{
		Use:     "images",
		Aliases: []string{"image", "img"},
		Short:   "List, pull, import and remove images",
		Long:    "List the images of this node. They are containerd's, shared with everything else in its namespace.",
		Example: "  nodeagent images\n  nodeagent images pull docker.io/library/busybox:1.37\n  nodeagent images import app.tar\n" +
			"  nodeagent images rm busybox:1.37\n  nodeagent images prune",
	}
	outputFlag(cmd, &out, listFormats...)
	cmd = verb(cmd, cobra.NoArgs, func(cmd *cobra.Command, n *node, _ []string) error {
		return listImages(cmd, n, out)
	})
	cmd.AddCommand(pullCommand(), importCommand(), removeCommand(), pruneCommand())
	return cmd
}

func listImages(cmd *cobra.Command, n *node, out format) error {
	all, err := n.runtime.Images().List(cmd.Context())
	if err != nil {
		return n.reach(err)
	}
	used, err := n.runtime.ImagesInUse(cmd.Context())
	if err != nil {
		return n.reach(err)
	}
	list := imageList{TypeMeta: diag.Of("ImageList"), Items: []imageItem{}}
	for _, img := range all {
		list.Items = append(list.Items, itemOf(img, inUse(img, used)))
	}
	w := cmd.OutOrStdout()
	switch out {
	case formatJSON, formatYAML:
		return show(w, out, list)
	case formatName:
		var all []string
		for _, i := range list.Items {
			all = append(all, i.Name)
		}
		return names(w, all)
	}
	return imageTable(list.Items, out == formatWide).write(w)
}

func itemOf(img image.Image, used bool) imageItem {
	i := imageItem{
		Name: img.Name, ID: img.ID.String(), Target: img.Target.String(), Size: img.Size,
		RepoTags: append([]string{}, img.RepoTags...), RepoDigests: append([]string{}, img.RepoDigests...),
		User: img.Config.User, Unpacked: img.Unpacked, InUse: used, Pinned: img.Pinned, Problem: img.Problem,
	}
	if img.Platform.OS != "" {
		i.Platform = img.Platform.OS + "/" + img.Platform.Architecture
	}
	return i
}

// inUse tells whether one of the image's names is among those used.
func inUse(img image.Image, used map[string]bool) bool {
	if used[img.Name] || used[img.ID.String()] {
		return true
	}
	for _, names := range [][]string{img.RepoTags, img.RepoDigests} {
		for _, name := range names {
			if used[name] {
				return true
			}
		}
	}
	return false
}

func imageTable(all []imageItem, wide bool) *table {
	t := &table{head: []string{"IMAGE", "TAG", "ID", "SIZE", "USED"}}
	if wide {
		t.head = append(t.head, "PLATFORM", "DIGEST", "PROBLEM")
	}
	for _, i := range all {
		shown := i.RepoTags
		if len(shown) == 0 {
			shown = []string{i.Name}
		}
		for _, name := range shown {
			repo, tag := splitTag(name)
			used := "no"
			if i.InUse {
				used = "yes"
			}
			row := []string{repo, tag, orDash(short(i.ID)), size(uint64(max(i.Size, 0))), used}
			if wide {
				row = append(row, orDash(i.Platform), short(i.Target), orDash(i.Problem))
			}
			t.add(row...)
		}
	}
	return t
}

// splitTag splits a reference before its tag or digest.
func splitTag(name string) (repo, tag string) {
	if repo, digest, ok := strings.Cut(name, "@"); ok {
		return repo, short(digest)
	}
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i], name[i+1:]
	}
	return name, "-"
}

func pullCommand() *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use:   "pull IMAGE",
		Short: "Pull an image",
		Long: "Pull an image from its registry, with the credentials of the node's docker configuration.\n" +
			"Its complete name is printed on stdout, the progress on stderr.",
		Example: "  nodeagent images pull busybox\n  nodeagent images pull -q registry.example/app:1.2",
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "show no progress")
	return verb(cmd, cobra.ExactArgs(1), func(cmd *cobra.Command, n *node, args []string) error {
		p := &progressLine{w: cmd.ErrOrStderr(), live: terminal(cmd.ErrOrStderr())}
		show := p.show
		if quiet {
			show = nil
		}
		img, err := n.runtime.Images().Pull(cmd.Context(), args[0], nil, show)
		p.end()
		switch {
		case image.IsInvalidName(err):
			return usageError{err}
		case image.IsNotFound(err):
			return notFoundError{err}
		case err != nil:
			return err
		}
		return names(cmd.OutOrStdout(), []string{img.Name})
	})
}

// progressLine shows a pull: on a terminal one line that is written again, else
// a line for each phase.
type progressLine struct {
	w     io.Writer
	live  bool
	phase string
	dirty bool
}

func (l *progressLine) show(p image.Progress) {
	text := p.Phase
	if p.Total > 0 {
		text += fmt.Sprintf(" %s of %s, %d of %d blobs", size(uint64(p.Done)), size(uint64(p.Total)), p.Ready, p.Blobs)
	}
	if l.live {
		fmt.Fprintf(l.w, "\r\x1b[K%s: %s", diag.Escape(p.Ref), text)
		l.dirty = true
		return
	}
	if p.Phase != l.phase {
		fmt.Fprintf(l.w, "%s: %s\n", diag.Escape(p.Ref), text)
	}
	l.phase = p.Phase
}

func (l *progressLine) end() {
	if l.dirty {
		fmt.Fprintln(l.w)
	}
}

func importCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "import FILE",
		Short:   "Import images from an archive",
		Long:    "Import the images of an archive made by \"docker save\" or with an OCI layout, also compressed; - is stdin.",
		Example: "  nodeagent images import app.tar\n  zcat app.tar.gz | nodeagent images import -",
	}
	cmd.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return verb(cmd, cobra.ExactArgs(1), func(cmd *cobra.Command, n *node, args []string) error {
		r := cmd.InOrStdin()
		if args[0] != "-" {
			f, err := os.Open(args[0])
			if errors.Is(err, os.ErrNotExist) {
				return notFoundError{err}
			}
			if err != nil {
				return err
			}
			defer f.Close()
			r = f
		}
		all, err := n.runtime.Images().Import(cmd.Context(), r)
		if err != nil {
			return n.reach(err)
		}
		return names(cmd.OutOrStdout(), all)
	})
}

func removeCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "rm IMAGE...",
		Aliases: []string{"remove", "rmi"},
		Short:   "Remove images",
		Long:    "Remove images by name, or by the start of an id with all names of it. One that a container uses is kept without --force.",
		Example: "  nodeagent images rm busybox:1.37 localhost/app:v1",
	}
	cmd.Flags().BoolVar(&force, "force", false, "also images that containers use: those go on, but cannot start again")
	return verb(cmd, cobra.MinimumNArgs(1), func(cmd *cobra.Command, n *node, args []string) error {
		used, err := n.runtime.ImagesInUse(cmd.Context())
		if err != nil {
			return n.reach(err)
		}
		var errs []error
		for _, ref := range args {
			errs = append(errs, n.removeImage(cmd, ref, used, force))
		}
		return errors.Join(errs...)
	})
}

func (n *node) removeImage(cmd *cobra.Command, ref string, used map[string]bool, force bool) error {
	store := n.runtime.Images()
	img, err := store.Get(cmd.Context(), ref)
	switch {
	case image.IsInvalidName(err):
		return usageError{err}
	case image.IsNotFound(err):
		return notFoundError{err}
	case err != nil && !image.IsNoPlatform(err): // one for another machine goes too
		return n.reach(err)
	case inUse(img, used) && !force:
		return fmt.Errorf("remove image %s: a container uses it; --force removes it nevertheless", img.Name)
	}
	if err := store.Remove(cmd.Context(), ref); err != nil {
		return n.reach(err)
	}
	return names(cmd.OutOrStdout(), []string{ref})
}

func pruneCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove images that nothing uses",
		Long: "Remove every image that no container uses, whoever made it, that no manifest names and that is not pinned.\n" +
			"What went is printed, and how much it was on stderr.",
		Example: "  nodeagent images prune",
	}
	cmd.Flags().BoolVar(&force, "force", false, "also while a manifest cannot be read, so that the images it names are not known")
	return verb(cmd, cobra.NoArgs, func(cmd *cobra.Command, n *node, _ []string) error {
		view, err := n.look(cmd)
		if err != nil {
			return err
		}
		if len(view.Problems) > 0 && !force {
			return fmt.Errorf("prune images: %s cannot be read, so the images that it names are not known: %s; mend it, or give --force", view.Problems[0].File, view.Problems[0].Message)
		}
		used, err := n.runtime.ImagesInUse(cmd.Context())
		if err != nil {
			return n.reach(err)
		}
		for _, p := range view.Pods {
			for _, c := range p.Containers {
				if name, err := image.Name(c.Image); err == nil {
					used[name] = true
				}
			}
		}
		gone, err := n.runtime.Images().Prune(cmd.Context(), func(img image.Image) bool { return inUse(img, used) })
		var bytes uint64
		var all []string
		for _, img := range gone {
			all, bytes = append(all, img.Name), bytes+uint64(max(img.Size, 0))
		}
		say(cmd, "removed %d images, %s of compressed layers", len(gone), size(bytes))
		return errors.Join(names(cmd.OutOrStdout(), all), n.reach(err))
	})
}
