package cert

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	certsv1 "k8s.io/api/certificates/v1"
	"k8s.io/client-go/rest"
)

// ClientConfig is what a Client is made of.
type ClientConfig struct {
	// Kubeconfig says where the API server is and who we are. It need not exist
	// where Bootstrap does: then it is written.
	Kubeconfig string
	// Bootstrap is the kubeconfig by which a first certificate is asked for, or
	// "". It is also used when the certificate has expired or is not taken.
	Bootstrap string
	// Dir is where certificates are kept: /var/lib/kubelet/pki.
	Dir string
	// NodeName is the name of the node that the certificate is for.
	NodeName string
	// Rotate: the certificate is renewed before it expires (rotateCertificates).
	Rotate bool
	// Asked, if set, is told of each request over the connections of this client: the
	// server of that moment, the answer's code, or 0 where there was none, and how long
	// it took until the answer began. It must not block.
	Asked  func(method, host string, code int, took time.Duration)
	Logger *slog.Logger

	dial  func(ctx context.Context, network, address string) (net.Conn, error) // of tests
	blind bool
	disk  disk
}

// Virtual is the same for tests of other rooms, in virtual time: dial makes the
// connections, and nothing waits for the kernel, so that a change of files is seen
// only when something else wakes the Client.
func (cfg ClientConfig) Virtual(dial func(ctx context.Context, network, address string) (net.Conn, error)) ClientConfig {
	cfg.dial, cfg.blind = dial, true
	return cfg
}

// Client is how the API server knows the node.
type Client struct {
	cfg   ClientConfig
	store store
	keep  *keeper

	mu    sync.Mutex // of lines
	lines []*line
	id    atomic.Pointer[identity]

	shared struct {
		sync.Mutex
		via      via   // for the next attempt
		rejected *pair // a certificate that the server does not take
	}
}

// via is how a certificate is asked for.
type via struct {
	boot  *login // nil: as who we are
	write bool   // there is one, only the kubeconfig is to be written
}

// absent tells whether there is no file, not even a link.
func absent(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, os.ErrNotExist)
}

// NewClient returns a client that has read nothing yet.
func NewClient(cfg ClientConfig) (*Client, error) {
	switch {
	case cfg.Kubeconfig == "":
		return nil, errors.New("make API client: no path of a kubeconfig")
	case cfg.Dir == "" || cfg.NodeName == "" || cfg.Logger == nil:
		return nil, errors.New("make API client: directory, node name and logger are needed")
	}
	if cfg.dial == nil {
		cfg.dial = dialer()
	}
	c := &Client{cfg: cfg, store: store{cfg.disk, cfg.Dir, "kubelet-client"}}
	c.keep = newKeeper("client", cfg.Logger, cfg.blind)
	c.keep.look, c.keep.ask = c.look, c.ask
	return c, nil
}

// Run keeps the identity right until ctx ends.
func (c *Client) Run(ctx context.Context) error {
	c.store.clean(time.Now())
	sweep(filepath.Dir(c.cfg.Kubeconfig), filepath.Base(c.cfg.Kubeconfig))
	return c.keep.run(ctx)
}

// Ready is closed when there are credentials: requests before that fail at once.
func (c *Client) Ready() <-chan struct{} { return c.keep.ready }

// State is for who explains.
func (c *Client) State() State { return c.keep.get() }

// Config returns a configuration for clients of the API server. It holds no
// secret and never changes: each request goes to the server of that moment with
// the credentials of that moment. Who calls it has connections of their own, so
// it is called once for all that may share them.
func (c *Client) Config() *rest.Config {
	cfg, _ := c.Dedicated()
	return cfg
}

// Dedicated does so too, and also returns a function that closes the connections:
// what is under way on them fails, and the next request opens a new one.
func (c *Client) Dedicated() (*rest.Config, func()) {
	l := &line{given: c.address(), id: c.id.Load, dial: c.cfg.dial, asked: c.cfg.Asked}
	c.mu.Lock()
	c.lines = append(c.lines, l)
	c.mu.Unlock()
	return &rest.Config{Host: l.given.String(), Transport: l}, l.reconnect
}

// address is the server as far as it is known; requests are sent to the right one
// in any case.
func (c *Client) address() *url.URL {
	if id := c.id.Load(); id != nil {
		return id.base
	}
	for _, path := range []string{c.cfg.Kubeconfig, c.cfg.Bootstrap} {
		if path == "" {
			continue
		}
		if l, _, err := readLogin(path); err == nil {
			if base, err := baseOf(l); err == nil {
				return base
			}
		}
	}
	return &url.URL{Scheme: "https", Host: "kubernetes.invalid"}
}

func baseOf(l *login) (*url.URL, error) {
	base, _, err := rest.DefaultServerUrlFor(l.rest)
	if err != nil {
		return nil, fmt.Errorf("address of the API server: %w", err)
	}
	return &url.URL{Scheme: base.Scheme, Host: base.Host, Path: strings.TrimSuffix(base.Path, "/")}, nil
}

// look reads the kubeconfigs and the store, and uses the best of what is there.
func (c *Client) look(now time.Time) view {
	v := view{paths: []string{c.cfg.Kubeconfig, c.store.current()}}
	stored := c.stored(&v)
	boot := c.guestLogin(&v)
	main, files, err := readLogin(c.cfg.Kubeconfig)
	v.paths = append(v.paths, files...)
	first := boot != nil && absent(c.cfg.Kubeconfig)
	if err != nil && !first {
		v.problem = errors.Join(v.problem, err)
	}
	adopt := false
	if main == nil && boot != nil && stored != nil && !stored.expired(now) {
		// Killed between the certificate and the kubeconfig, or the kubeconfig
		// is broken: the server is the same, and the certificate is ours.
		main, adopt = boot.bare(), first
	}
	c.judge(&v, main, boot, stored, now)
	if adopt && c.same(stored) != c.rejected() {
		v.renew, v.wants = now, "kubeconfig"
		c.choose(via{boot: boot, write: true})
	}
	return v
}

// guestLogin is the bootstrap kubeconfig, if it is there.
func (c *Client) guestLogin(v *view) *login {
	if c.cfg.Bootstrap == "" {
		return nil
	}
	boot, files, err := readLogin(c.cfg.Bootstrap)
	v.paths = append(v.paths, files...)
	if err != nil && !absent(c.cfg.Bootstrap) {
		v.problem = errors.Join(v.problem, err)
	}
	return boot
}

// stored is the certificate of the store, if it is this node's.
func (c *Client) stored(v *view) *pair {
	p, err := c.store.load()
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			v.problem = err
		}
		return nil
	}
	if got := p.leaf().Subject.CommonName; got != subject(c.cfg.NodeName).CommonName {
		v.problem = fmt.Errorf("%s is not of this node but of %q", c.store.current(), got)
		return nil
	}
	return p
}

// judge puts the best identity into use and says when another is wanted.
func (c *Client) judge(v *view, main, boot *login, stored *pair, now time.Time) {
	if main != nil && main.other && main.pair == nil {
		c.use(v, main, nil) // a token or a plugin: theirs to renew
		return
	}
	var best *pair
	if main != nil {
		if best = c.same(c.better(main.pair, stored)); best != nil {
			c.use(v, main, best)
		} else {
			v.problem = errors.Join(v.problem, c.without(main))
		}
	}
	if id := c.id.Load(); best == nil && id != nil { // the last that was good
		v.usable = true
		if id.pair != nil {
			v.leaf = id.pair.leaf()
		}
	}
	old := best != nil && best.expired(now)
	if old {
		v.problem = errors.Join(v.problem, fmt.Errorf("the client certificate has expired at %s", best.leaf().NotAfter.UTC().Format(time.RFC3339)))
	}
	v.wants = c.cfg.NodeName
	switch unfit := best == nil || old || best == c.rejected(); {
	case unfit && boot != nil:
		v.renew, v.wants = now, fmt.Sprintf("bootstrap %x", boot.print)
		c.choose(via{boot: boot})
	case c.cfg.Rotate && best != nil:
		// Also one that has expired: the clock may be wrong.
		v.renew = renewal(best.leaf())
		c.choose(via{})
	case boot != nil:
		v.renew, v.wants = best.leaf().NotAfter.Add(time.Second), fmt.Sprintf("bootstrap %x", boot.print)
		c.choose(via{boot: boot})
	}
}

// better is the certificate that was issued later: so that an operator who puts a
// new one into the kubeconfig is heeded, and the store is where it was renewed.
func (c *Client) better(configured, stored *pair) *pair {
	switch {
	case configured == nil:
		return stored
	case stored == nil || !c.cfg.Rotate && c.cfg.Bootstrap == "":
		return configured
	case configured.leaf().NotBefore.After(stored.leaf().NotBefore):
		return configured
	}
	return stored
}

// same returns the pair in use if p is that one, so that pointers can be compared.
func (c *Client) same(p *pair) *pair {
	if id := c.id.Load(); p != nil && id != nil && id.pair != nil && bytes.Equal(id.pair.cert, p.cert) && bytes.Equal(id.pair.key, p.key) {
		return id.pair
	}
	return p
}

func (c *Client) without(main *login) error {
	if main.missing != nil {
		return fmt.Errorf("client certificate of %s: %w", c.cfg.Kubeconfig, main.missing)
	}
	return fmt.Errorf("%s holds no credentials", c.cfg.Kubeconfig)
}

// use puts an identity into use, where it is another than before.
func (c *Client) use(v *view, l *login, p *pair) {
	if p != nil {
		v.leaf = p.leaf()
	}
	v.usable = true
	if id := c.id.Load(); id != nil && id.pair == p && id.login.print == l.print {
		return
	}
	base, err := baseOf(l)
	if err != nil {
		v.problem = errors.Join(v.problem, err)
		return
	}
	id := &identity{login: l, pair: p, base: base}
	c.id.Store(id)
	c.mu.Lock()
	lines := c.lines
	c.mu.Unlock()
	for _, l := range lines {
		l.follow(id)
	}
}

func (c *Client) choose(v via) {
	c.shared.Lock()
	defer c.shared.Unlock()
	c.shared.via = v
}

func (c *Client) rejected() *pair {
	c.shared.Lock()
	defer c.shared.Unlock()
	return c.shared.rejected
}

func (c *Client) writeKubeconfig(boot *login) error {
	text, err := kubeconfig(boot, c.store.current())
	if err != nil {
		return fmt.Errorf("write %s: %w", c.cfg.Kubeconfig, err)
	}
	return c.cfg.disk.replace(c.cfg.Kubeconfig, text, keyMode)
}

func (c *Client) order() order {
	return order{signer: certsv1.KubeAPIServerClientKubeletSignerName, usage: certsv1.UsageClientAuth, node: c.cfg.NodeName}
}
