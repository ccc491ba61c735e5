package image

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/distribution/reference"
)

// Auth are the credentials of one pull; the zero value means anonymous.
type Auth struct {
	Username, Password string
	IdentityToken      string // instead of both
	// Server is the registry host that they are for; "" means the image's own.
	// No other host, such as a mirror, is ever sent them.
	Server string

	grant string // of a pod's pull secret: see Keys
}

// String keeps secrets out of everything that formats an Auth.
func (a Auth) String() string { return "credentials of " + a.Server }

// GoString is String.
func (a Auth) GoString() string { return a.String() }

func (a Auth) empty() bool { return a.Username == "" && a.Password == "" && a.IdentityToken == "" }

// maxDockerConfig bounds a docker config file.
const maxDockerConfig = 1 << 20

// dockerConfig is the part of ~/.docker/config.json that we read.
type dockerConfig struct {
	Auths map[string]struct {
		Auth          string `json:"auth"` // base64 of user:password
		Username      string `json:"username"`
		Password      string `json:"password"`
		IdentityToken string `json:"identitytoken"`
		RegistryToken string `json:"registrytoken"`
	} `json:"auths"`
	CredHelpers map[string]string `json:"credHelpers"`
	CredsStore  string            `json:"credsStore"`
}

// entry are the credentials of one key of a docker config.
type entry struct {
	host, path string // of the key; the host's labels may be globs
	auth       Auth
	unusable   string // why the entry cannot be used
}

// keyring are the entries of all docker configs.
type keyring struct {
	entries []entry
	named   map[string]string // host -> credential helper that is named, not run
	store   string
}

// keyring reads the node's docker configs. They are small, and read at each
// pull, so that a changed one counts at once. One that cannot be read is
// logged and left out: an image that needs it fails with its registry's word.
func (s *Store) keyring() *keyring {
	k := &keyring{}
	for _, file := range s.cfg.DockerConfigs {
		b, err := readConfig(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = k.add(b)
		}
		if err != nil {
			s.cfg.Logger.Warn("read registry credentials", "file", file, "err", err)
		}
	}
	return k
}

func readConfig(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxDockerConfig+1))
	if err == nil && len(b) > maxDockerConfig {
		err = fmt.Errorf("larger than %d bytes", maxDockerConfig)
	}
	return b, err
}

// add parses one docker config. Its errors never quote the file.
func (k *keyring) add(b []byte) error {
	var cfg dockerConfig
	if err := json.Unmarshal(b, &cfg); err != nil {
		return errors.New("not a docker config: broken JSON")
	}
	for key, a := range cfg.Auths {
		e := entry{auth: Auth{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken}}
		e.host, e.path = splitKey(key)
		if a.Auth != "" {
			user, password, ok := decodeAuth(a.Auth)
			if !ok {
				e.unusable = "its auth is not base64 of user:password"
			}
			e.auth.Username, e.auth.Password = user, password
		}
		if a.RegistryToken != "" && e.auth.empty() {
			e.unusable = "a registrytoken is not supported"
		}
		if e.auth.IdentityToken != "" {
			e.auth.Username, e.auth.Password = "", ""
		}
		if !e.auth.empty() || e.unusable != "" {
			k.entries = append(k.entries, e)
		}
	}
	if k.named == nil {
		k.named = map[string]string{}
	}
	for key, helper := range cfg.CredHelpers {
		host, _ := splitKey(key)
		k.named[host] = helper
	}
	if cfg.CredsStore != "" {
		k.store = cfg.CredsStore
	}
	// The longest key first, as kubelet's keyring.
	slices.SortStableFunc(k.entries, func(a, b entry) int {
		return strings.Compare(b.host+b.path, a.host+a.path)
	})
	return nil
}

func decodeAuth(s string) (user, password string, ok bool) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		if b, err = base64.RawStdEncoding.DecodeString(s); err != nil {
			return "", "", false
		}
	}
	user, password, ok = strings.Cut(string(b), ":")
	return user, strings.TrimRight(password, "\x00"), ok
}

// splitKey splits "https://host:port/v1/path" as docker writes keys.
func splitKey(key string) (host, prefix string) {
	if !strings.Contains(key, "://") {
		key = "https://" + key
	}
	u, err := url.Parse(key)
	if err != nil {
		return key, ""
	}
	prefix = strings.Trim(u.Path, "/")
	// The API version that docker login leaves is no repository.
	for _, v := range []string{"v1", "v2"} {
		if prefix == v {
			prefix = ""
		}
		prefix = strings.TrimPrefix(prefix, v+"/")
	}
	return canonicalHost(u.Host), prefix
}

// canonicalHost gives Docker Hub's hosts one name.
func canonicalHost(h string) string {
	switch h {
	case "index.docker.io", "registry-1.docker.io", "registry.docker.io":
		return "docker.io"
	}
	return h
}

func (e entry) matches(host, repo string) bool {
	if !matchHost(e.host, canonicalHost(host)) {
		return false
	}
	return e.path == "" || repo == e.path || strings.HasPrefix(repo, e.path+"/")
}

// matchHost compares label by label, so that a glob never spans a dot.
func matchHost(pattern, host string) bool {
	pp, hp := strings.Split(pattern, "."), strings.Split(host, ".")
	if len(pp) != len(hp) {
		return false
	}
	for i := range pp {
		if ok, err := path.Match(pp[i], hp[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

// find returns all credentials for a repository at a host, the longest key
// first.
func (k *keyring) find(host, repo string) []Auth {
	var out []Auth
	for _, e := range k.entries {
		if e.unusable == "" && e.matches(host, repo) {
			a := e.auth
			a.Server = host
			out = append(out, a)
		}
	}
	return out
}

// lookup returns the credentials to try for an image, at least one: those
// given, else all of the pod's and then of the docker configs that fit, else
// none.
func (k *keyring) lookup(named reference.Named, given *Auth, keys Keys) []Auth {
	if given != nil && !given.empty() {
		return []Auth{*given}
	}
	host, repo := reference.Domain(named), reference.Path(named)
	if found := append(keys.ring.find(host, repo), k.find(host, repo)...); len(found) > 0 {
		return found
	}
	return []Auth{{}}
}

// explain adds to a refusal what the docker configs say and we do not do.
func (k *keyring) explain(named reference.Named, err error) error {
	if !IsUnauthorized(err) {
		return err
	}
	host, repo := reference.Domain(named), reference.Path(named)
	helper := k.named[canonicalHost(host)]
	if helper == "" {
		helper = k.store
	}
	if len(k.find(host, repo)) == 0 && helper != "" {
		return fmt.Errorf("%w (the docker config names the credential helper %q, which is not run)", err, helper)
	}
	for _, e := range k.entries {
		if e.unusable != "" && e.matches(host, repo) {
			return fmt.Errorf("%w (the docker config has an entry for %s, but %s)", err, e.host, e.unusable)
		}
	}
	return err
}

// helper answers containerd's requests for credentials.
func (k *keyring) helper(named reference.Named, a Auth) registry.CredentialHelper {
	server := a.Server
	if server == "" {
		server = reference.Domain(named)
	} else {
		server, _ = splitKey(server)
	}
	return &credentials{keys: k, named: named, auth: a, server: canonicalHost(server)}
}

type credentials struct {
	keys   *keyring
	named  reference.Named
	auth   Auth
	server string
}

// GetCredentials returns what to send to a host, anonymous where there is
// nothing. It never returns an error: the transfer service's client would leave
// the request unanswered and the pull would hang.
func (c *credentials) GetCredentials(_ context.Context, _, host string) (registry.Credentials, error) {
	a := c.auth
	if canonicalHost(host) != c.server {
		a = Auth{} // a mirror: what the docker config has for it
		if found := c.keys.find(host, reference.Path(c.named)); len(found) > 0 {
			a = found[0]
		}
	}
	if a.IdentityToken != "" {
		return registry.Credentials{Host: host, Secret: a.IdentityToken}, nil
	}
	return registry.Credentials{Host: host, Username: a.Username, Secret: a.Password}, nil
}
