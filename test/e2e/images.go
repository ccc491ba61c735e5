package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"nodeagent/test/bed"
	"nodeagent/test/cluster"
	"nodeagent/test/image"
)

// parts are what the images are made from.
type parts struct {
	debian, busybox, bash, shell, agnhost, nonewprivs, podtool []byte
	certificate, key                                           []byte // of agnhost's servers
	applets                                                    []string
}

// makers make the images, by the last part of the name that the suite calls them by.
// They hold what the tests look for in them; pause and nginx stand in for the real
// ones: the first ends at once when told to, the second serves a page.
var makers = map[string]func(parts) (image.Spec, error){
	"agnhost":           parts.agnhostImage,
	"glibc-dns-testing": parts.debianImage,
	"ipc-utils":         parts.debianImage,
	"busybox":           parts.busyboxImage,
	"nonroot":           parts.nonRootImage,
	"nonewprivs":        parts.noNewPrivsImage,
	"nginx":             parts.nginxImage,
	"pause":             parts.pauseImage,
}

// makeImages returns the images that the suite asks for, under its own names. Those
// for which there is no maker it says: tests that need one of them fail.
func makeImages(ctx context.Context, tools string) ([]image.Spec, error) {
	p, err := gather(ctx, tools)
	if err != nil {
		return nil, err
	}
	list, err := exec.CommandContext(ctx, filepath.Join(tools, "e2e.test"), "-list-images").Output()
	if err != nil {
		return nil, fmt.Errorf("ask the suite for the names of its images: %w", err)
	}
	var specs []image.Spec
	var without []string
	for _, name := range wanted(string(list)) {
		make, ok := makers[short(name)]
		if !ok || strings.HasPrefix(name, "gcr.io/") {
			without = append(without, name)
			continue
		}
		s, err := make(p)
		if err != nil {
			return nil, err
		}
		s.Name = name
		specs = append(specs, s)
	}
	fmt.Printf("not made here: %s\n", strings.Join(without, " "))
	return specs, nil
}

// wanted are the names of a list of images, each once.
func wanted(list string) []string {
	names := map[string]bool{}
	for line := range strings.Lines(list) {
		if name := strings.TrimSpace(line); strings.Contains(name, ":") && strings.Contains(name, "/") && !strings.Contains(name, " ") {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// short is the last part of an image's name: agnhost of registry.k8s.io/…/agnhost:2.
func short(name string) string {
	name, _, _ = strings.Cut(name[strings.LastIndexByte(name, '/')+1:], ":")
	return name
}

func gather(ctx context.Context, tools string) (p parts, err error) {
	root, err := bed.ModuleRoot(ctx)
	if err != nil {
		return p, err
	}
	if p.podtool, err = image.Podtool(ctx, root); err != nil {
		return p, err
	}
	if p.shell, err = image.Sh(ctx, root); err != nil {
		return p, err
	}
	tree, err := debian(ctx)
	if err != nil {
		return p, err
	}
	source, err := cluster.Source(ctx)
	if err != nil {
		return p, err
	}
	porter := filepath.Join(source, "test", "images", "agnhost", "porter")
	for path, to := range map[string]*[]byte{
		filepath.Join(porter, "localhost.crt"): &p.certificate,
		filepath.Join(porter, "localhost.key"): &p.key,
		tree:                                   &p.debian,
		"/bin/busybox":                         &p.busybox,
		"/bin/bash-static":                     &p.bash,
		filepath.Join(tools, "agnhost"):        &p.agnhost,
		filepath.Join(tools, "nonewprivs"):     &p.nonewprivs,
	} {
		if *to, err = os.ReadFile(path); err != nil {
			return p, err
		}
	}
	list, err := exec.CommandContext(ctx, "/bin/busybox", "--list").Output()
	p.applets = strings.Fields(string(list))
	return p, err
}

// users are those whom tests look for in the images.
var users = map[string]image.File{
	"/etc/passwd": {Mode: 0o644, Data: []byte("root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n" +
		"user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh\n")},
	"/etc/group": {Mode: 0o644, Data: []byte("root:x:0:\ndaemon:x:1:\ntty:x:5:\nnogroup:x:65534:\nuser-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n")},
}

const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// debianImage has a shell, and what one looks at names and networks with.
func (p parts) debianImage() (image.Spec, error) {
	return image.Spec{Base: p.debian, Files: maps.Clone(users), Cmd: []string{"/bin/bash"}, Env: []string{path}}, nil
}

// agnhostImage is Debian with agnhost, which has a registry with one image.
func (p parts) agnhostImage() (image.Spec, error) {
	s, err := p.debianImage()
	if err != nil {
		return s, err
	}
	pause, err := p.pauseImage()
	if err != nil {
		return s, err
	}
	pause.Name = "pause"
	files, err := image.Registry("testing", pause)
	if err != nil {
		return s, err
	}
	for name, f := range files {
		s.Files[filepath.Join("/var/registry", name)] = f
	}
	s.Files["/agnhost"] = image.File{Mode: 0o755, Data: p.agnhost}
	s.Files["/agnhost-2"] = image.File{Link: "agnhost"}
	s.Files["/localhost.crt"] = image.File{Mode: 0o644, Data: p.certificate}
	s.Files["/localhost.key"] = image.File{Mode: 0o644, Data: p.key}
	s.Files["/uploads"] = image.File{Mode: 0o755, Dir: true}
	s.Entrypoint, s.Cmd = []string{"/agnhost"}, []string{"pause"}
	return s, nil
}

// busyboxImage has busybox's programs and a shell that is busybox's or, where tests look
// for variables that a ConfigMap's keys made, bash (test/image/sh).
func (p parts) busyboxImage() (image.Spec, error) {
	s := image.Spec{Files: maps.Clone(users), Cmd: []string{"sh"}, Env: []string{path}}
	s.Files["/bin/busybox"] = image.File{Mode: 0o755, Data: p.busybox}
	for _, name := range p.applets {
		s.Files["/bin/"+filepath.Base(name)] = image.File{Link: "busybox"}
	}
	s.Files["/bin/busybox"] = image.File{Mode: 0o755, Data: p.busybox}
	s.Files["/bin/bash"] = image.File{Mode: 0o755, Data: p.bash}
	s.Files["/bin/sh"] = image.File{Mode: 0o755, Data: p.shell}
	s.Files["/root"] = image.File{Mode: 0o700, Dir: true}
	s.Files["/tmp"] = image.File{Mode: 0o1777, Dir: true}
	return s, nil
}

func (p parts) nonRootImage() (image.Spec, error) {
	s, err := p.busyboxImage()
	s.User = "1234"
	return s, err
}

// noNewPrivsImage has a program that changes its user where it may.
func (p parts) noNewPrivsImage() (image.Spec, error) {
	s, err := p.busyboxImage()
	s.Files["/usr/local/bin/nnp"] = image.File{Mode: 0o6755, Data: p.nonewprivs}
	s.Cmd = []string{"nnp"}
	return s, err
}

func (p parts) nginxImage() (image.Spec, error) {
	s, err := p.busyboxImage()
	s.Files["/usr/share/nginx/html/index.html"] = image.File{Mode: 0o644, Data: []byte("<title>Welcome to nginx!</title>\n")}
	s.Cmd = []string{"httpd", "-f", "-p", "80", "-h", "/usr/share/nginx/html"}
	return s, err
}

func (p parts) pauseImage() (image.Spec, error) {
	return image.Spec{
		Files:      map[string]image.File{"/pause": {Mode: 0o755, Data: p.podtool}},
		Entrypoint: []string{"/pause", "sleep", "forever"},
		User:       "65535:65535",
		Env:        []string{path},
	}, nil
}
