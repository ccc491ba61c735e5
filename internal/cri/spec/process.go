package spec

import (
	"bytes"
	"path"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// defaultPath is the PATH of a container whose image and config set none.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func setProcess(in Input, s *specs.Spec) (err error) {
	if s.Process.Args, err = args(in.Container, in.Image); err != nil {
		return err
	}
	if s.Process.Env, err = env(in); err != nil {
		return err
	}
	s.Process.Cwd, err = cwd(in.Container, in.Image)
	s.Process.ApparmorProfile = in.AppArmorProfile
	return err
}

// args is command (else ENTRYPOINT) and args (else CMD). With a command of its
// own a container drops the image's CMD too (Kubernetes, "Define a Command and
// Arguments for a Container").
func args(c *runtimeapi.ContainerConfig, image ocispec.ImageConfig) ([]string, error) {
	command, rest := c.GetCommand(), c.GetArgs()
	if len(command) == 0 {
		// An image may say ENTRYPOINT [""] to take back its base's.
		if e := image.Entrypoint; len(e) != 1 || e[0] != "" {
			command = e
		}
		if len(rest) == 0 {
			rest = image.Cmd
		}
	}
	out := slices.Concat(command, rest)
	if len(out) == 0 {
		return nil, refuse("no command specified: neither the container nor its image names one")
	}
	if out[0] == "" {
		return nil, refuse("the command's name is empty")
	}
	for _, a := range out {
		if strings.IndexByte(a, 0) >= 0 {
			return nil, refuse("an argument of the command holds a NUL byte")
		}
	}
	return out, nil
}

// env merges, later ones first: the config, the image, HOSTNAME, TERM, PATH.
func env(in Input) ([]string, error) {
	e := envList{at: map[string]int{}}
	e.set("PATH", defaultPath[len("PATH="):])
	if in.Container.GetTty() {
		e.set("TERM", "xterm")
	}
	hostname := in.Hostname
	if hostname == "" {
		hostname = in.Sandbox.GetHostname()
	}
	if hostname != "" {
		e.set("HOSTNAME", hostname)
	}
	for _, kv := range in.Image.Env {
		// What is no variable at all is left out: execve would pass it on to
		// programs that may not expect it.
		if key, value, ok := strings.Cut(kv, "="); ok && key != "" && strings.IndexByte(kv, 0) < 0 {
			e.set(key, value)
		}
	}
	for _, kv := range in.Container.GetEnvs() {
		if kv.GetKey() == "" || strings.ContainsAny(kv.GetKey(), "=\x00") {
			return nil, refuse("environment variable name %q is not valid", kv.GetKey())
		}
		if bytes.IndexByte(kv.GetValue(), 0) >= 0 {
			// The value may be a secret: name the variable only.
			return nil, refuse("environment variable %q holds a NUL byte", kv.GetKey())
		}
		e.set(kv.GetKey(), string(kv.GetValue()))
	}
	return e.list, nil
}

// envList keeps each variable once, at the place where it was first set.
type envList struct {
	list []string
	at   map[string]int
}

func (e *envList) set(key, value string) {
	if i, ok := e.at[key]; ok {
		e.list[i] = key + "=" + value
		return
	}
	e.at[key] = len(e.list)
	e.list = append(e.list, key+"="+value)
}

// cwd is the config's working directory, else the image's, else "/". A path
// below /proc could name a file descriptor that leaked from the host
// (CVE-2024-21626) and is refused.
func cwd(c *runtimeapi.ContainerConfig, image ocispec.ImageConfig) (string, error) {
	dir, of := c.GetWorkingDir(), "container"
	if dir == "" {
		dir, of = image.WorkingDir, "image"
	}
	if dir == "" {
		return "/", nil
	}
	clean := path.Clean(dir)
	switch {
	case !path.IsAbs(dir) || strings.IndexByte(dir, 0) >= 0:
		return "", refuse("working directory %q of the %s is not an absolute path", dir, of)
	case clean == "/proc" || strings.HasPrefix(clean, "/proc/"):
		return "", refuse("working directory %q of the %s lies in /proc", dir, of)
	}
	return clean, nil
}
