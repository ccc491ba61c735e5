// Package image owns the example and test images: OCI layouts made from a static
// Go program of this repository (and, for a shell, from busybox-static), without
// a registry and byte for byte the same each time. It never talks to containerd.
// Its functions may be called from any goroutine.
package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// Names of the images that Build makes.
const (
	Example = "localhost/nodeagent/example:v1" // podtool alone
	Shell   = "localhost/nodeagent/shell:v1"   // podtool and busybox with its usual links
)

// Spec says what an image holds.
type Spec struct {
	Name       string
	Files      map[string]File // absolute path: file
	Base       []byte          // a tar that lies below Files as a layer of its own
	Entrypoint []string
	Cmd        []string
	Env        []string
	User       string
	WorkingDir string
	StopSignal string
	Labels     map[string]string
	Volumes    []string
	Arch       string // default: this machine's
}

// File is one entry of an image's layer.
type File struct {
	Mode int64
	Data []byte
	Link string // target, for a symbolic link
	Dir  bool
}

// Podtool builds test/image/podtool of the module at root and returns its bytes.
func Podtool(ctx context.Context, root string) ([]byte, error) { return tool(ctx, root, "podtool") }

// Sh builds test/image/sh of the module at root and returns its static binary.
func Sh(ctx context.Context, root string) ([]byte, error) {
	return tool(ctx, root, "sh")
}

// Healthtool builds test/image/healthtool of the module at root and returns its
// bytes.
func Healthtool(ctx context.Context, root string) ([]byte, error) {
	return tool(ctx, root, "healthtool")
}

func tool(ctx context.Context, root, name string) ([]byte, error) {
	dir, err := os.MkdirTemp("", name+"-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, name)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=", "-o", out, "./test/image/"+name)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w\n%s", name, err, text)
	}
	return os.ReadFile(out)
}

// ExampleSpec is the image of the example manifests: podtool, a place to write,
// and, as most images have them, the places that a runtime mounts on.
func ExampleSpec(podtool []byte) Spec {
	s := bareSpec(podtool)
	for _, dir := range []string{"/dev", "/proc", "/run", "/sys"} {
		s.Files[dir] = File{Mode: 0o755, Dir: true}
	}
	for _, file := range []string{"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"} {
		s.Files[file] = File{Mode: 0o644}
	}
	return s
}

// bareSpec is an image in which a runtime has to make every place it mounts on.
func bareSpec(podtool []byte) Spec {
	return Spec{
		Name: Example,
		Files: map[string]File{
			"/podtool":    {Mode: 0o755, Data: podtool},
			"/tmp":        {Mode: 0o1777, Dir: true},
			"/etc/passwd": {Mode: 0o644, Data: []byte("root:x:0:0:root:/:/podtool\nnobody:x:65534:65534:nobody:/:/podtool\n")},
			"/etc/group":  {Mode: 0o644, Data: []byte("root:x:0:\nnogroup:x:65534:\nextra:x:4242:nobody\n")},
		},
		Entrypoint: []string{"/podtool"},
		Cmd:        []string{"sleep", "forever"},
		Env:        []string{"PATH=/:/bin"},
	}
}

// ShellSpec is podtool and busybox, Debian's busybox-static, as /bin/sh and the
// other names in applets, without any place to mount on.
func ShellSpec(podtool []byte) (Spec, error) {
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return Spec{}, fmt.Errorf("read busybox (Debian package busybox-static): %w", err)
	}
	s := bareSpec(podtool)
	s.Name = Shell
	s.Files["/bin/busybox"] = File{Mode: 0o755, Data: busybox}
	for _, name := range applets {
		s.Files["/bin/"+name] = File{Link: "busybox"}
	}
	s.Entrypoint, s.Cmd = nil, []string{"/bin/sh"}
	s.Env = []string{"PATH=/bin:/"}
	return s, nil
}

var applets = []string{"sh", "ls", "cat", "echo", "sleep", "ps", "kill", "mount", "ip", "wget", "nc", "id", "env",
	"dd", "touch", "rm", "mkdir", "grep", "head", "tail", "seq", "yes", "true", "false", "hostname", "stat", "df", "ulimit", "date", "sync", "tty", "stty", "tar", "rmdir"}

// Write writes an OCI image layout with the given images as a tar stream.
func Write(w io.Writer, specs ...Spec) error {
	t := tar.NewWriter(w)
	l := layout{to: archive{t}, seen: map[string]bool{}}
	if err := l.put("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	var manifests []any
	for _, s := range specs {
		m, err := l.image(s)
		if err != nil {
			return fmt.Errorf("write image %s: %w", s.Name, err)
		}
		manifests = append(manifests, m)
	}
	index, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests,
	})
	if err != nil {
		return err
	}
	if err := l.put("index.json", index); err != nil {
		return err
	}
	return t.Close()
}

type layout struct {
	to   store
	seen map[string]bool
}

// store takes what an image consists of.
type store interface {
	put(name string, data []byte) error
}

// archive stores as files of a tar.
type archive struct{ *tar.Writer }

func (a archive) put(name string, data []byte) error {
	if err := a.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err := a.Write(data)
	return err
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    map[string]string `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

func (l *layout) put(name string, data []byte) error {
	if l.seen[name] {
		return nil
	}
	l.seen[name] = true
	return l.to.put(name, data)
}

func (l *layout) blob(mediaType string, data []byte) (descriptor, error) {
	sum := sha256.Sum256(data)
	hash := hex.EncodeToString(sum[:])
	return descriptor{MediaType: mediaType, Digest: "sha256:" + hash, Size: len(data)}, l.put("blobs/sha256/"+hash, data)
}

func (l *layout) image(s Spec) (descriptor, error) {
	if s.Arch == "" {
		s.Arch = runtime.GOARCH
	}
	data, err := layer(s.Files)
	if err != nil {
		return descriptor{}, err
	}
	layers := []descriptor{}
	var digests []string
	for _, data := range [][]byte{s.Base, data} {
		if data == nil {
			continue
		}
		blob, err := l.blob("application/vnd.oci.image.layer.v1.tar", data)
		if err != nil {
			return descriptor{}, err
		}
		layers, digests = append(layers, blob), append(digests, blob.Digest)
	}
	conf, err := json.Marshal(config(s, digests))
	if err != nil {
		return descriptor{}, err
	}
	cd, err := l.blob("application/vnd.oci.image.config.v1+json", conf)
	if err != nil {
		return descriptor{}, err
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": cd, "layers": layers,
	})
	if err != nil {
		return descriptor{}, err
	}
	d, err := l.blob("application/vnd.oci.image.manifest.v1+json", manifest)
	d.Platform = map[string]string{"os": "linux", "architecture": s.Arch}
	d.Annotations = map[string]string{"io.containerd.image.name": s.Name, "org.opencontainers.image.ref.name": s.Name}
	return d, err
}

func config(s Spec, diffIDs []string) map[string]any {
	volumes := map[string]any{}
	for _, v := range s.Volumes {
		volumes[v] = struct{}{}
	}
	return map[string]any{
		"architecture": s.Arch, "os": "linux", "created": "1970-01-01T00:00:00Z",
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
		"config": map[string]any{
			"Entrypoint": s.Entrypoint, "Cmd": s.Cmd, "Env": s.Env, "User": s.User, "WorkingDir": s.WorkingDir,
			"StopSignal": s.StopSignal, "Labels": s.Labels, "Volumes": volumes,
		},
	}
}

// layer makes the tar of an image's files: sorted, with parents, at time zero.
func layer(files map[string]File) ([]byte, error) {
	var buf bytes.Buffer
	t := tar.NewWriter(&buf)
	for _, e := range entries(files) {
		h := &tar.Header{Name: e.path[1:], Mode: e.Mode, Format: tar.FormatPAX}
		switch {
		case e.Dir:
			h.Name, h.Typeflag = h.Name+"/", tar.TypeDir
		case e.Link != "":
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, e.Link, 0o777
		default:
			h.Typeflag, h.Size = tar.TypeReg, int64(len(e.Data))
		}
		if err := t.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := t.Write(e.Data); err != nil {
			return nil, err
		}
	}
	if err := t.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
