package cert

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	certsv1 "k8s.io/api/certificates/v1"
	"k8s.io/client-go/rest"
)

// ServingConfig is what a Serving is made of.
type ServingConfig struct {
	// CertFile and KeyFile (tlsCertFile, tlsPrivateKeyFile) are somebody else's:
	// they are followed and never written. Else:
	CertFile, KeyFile string
	// ByRequest: the cluster signs (serverTLSBootstrap), through API. Else the
	// certificate is signed by itself.
	ByRequest bool
	API       *rest.Config
	// APIReady is closed when there is a point in asking; nil: at once.
	APIReady <-chan struct{}
	// Dir is where certificates are kept: /var/lib/kubelet/pki.
	Dir      string
	NodeName string
	// Names are the node's at first; see SetNames.
	Names  Names
	Logger *slog.Logger

	blind bool // of tests
	disk  disk
}

// Virtual is the same for tests of other rooms, in virtual time: nothing waits for
// the kernel.
func (cfg ServingConfig) Virtual() ServingConfig {
	cfg.blind = true
	return cfg
}

// Serving is the certificate that the node shows on its port.
type Serving struct {
	cfg   ServingConfig
	store store
	keep  *keeper
	names atomic.Pointer[Names]
	pair  atomic.Pointer[pair]
}

// NewServing returns a certificate that has read nothing yet.
func NewServing(cfg ServingConfig) (*Serving, error) {
	files := cfg.CertFile != "" || cfg.KeyFile != ""
	switch {
	case files && (cfg.CertFile == "" || cfg.KeyFile == ""):
		return nil, errors.New("make serving certificate: tlsCertFile and tlsPrivateKeyFile belong together")
	case !files && cfg.ByRequest && cfg.API == nil:
		return nil, errors.New("make serving certificate: serverTLSBootstrap needs an API server")
	case !files && (cfg.Dir == "" || cfg.NodeName == "") || cfg.Logger == nil:
		return nil, errors.New("make serving certificate: directory, node name and logger are needed")
	}
	s := &Serving{cfg: cfg, store: store{cfg.disk, cfg.Dir, "kubelet-server"}}
	s.keep = newKeeper("serving", cfg.Logger, cfg.blind)
	switch {
	case files:
		s.keep.look = s.lookFiles
	case cfg.ByRequest:
		s.keep.look, s.keep.ask = s.lookSigned, s.ask
	default:
		s.keep.look, s.keep.ask = s.lookOwn, s.sign
	}
	names := cfg.Names.sorted()
	s.names.Store(&names)
	return s, nil
}

// Run keeps the certificate right until ctx ends.
func (s *Serving) Run(ctx context.Context) error {
	if s.cfg.CertFile == "" {
		s.store.clean(time.Now())
		sweep(s.cfg.Dir, filepath.Base(s.ownCert()))
		sweep(s.cfg.Dir, filepath.Base(s.ownKey()))
	}
	return s.keep.run(ctx)
}

// Ready is closed when there is a certificate.
func (s *Serving) Ready() <-chan struct{} { return s.keep.ready }

// State is for who explains.
func (s *Serving) State() State { return s.keep.get() }

// SetNames tells what the certificate has to be good for. One that is already is
// kept; a certificate from files is never changed.
func (s *Serving) SetNames(n Names) {
	n = n.sorted()
	s.names.Store(&n)
	poke(s.keep.wake)
}

// GetCertificate is for tls.Config. One that has expired is still shown: many
// clients do not look, and those that do tell their user more than a connection
// without a certificate would.
func (s *Serving) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p := s.pair.Load()
	if p == nil {
		if st := s.State(); st.Request != "" {
			return nil, fmt.Errorf("no serving certificate: certificate signing request %s waits to be approved", st.Request)
		}
		return nil, errors.New("there is no serving certificate yet")
	}
	return &p.tls, nil
}

func (s *Serving) ownCert() string { return filepath.Join(s.cfg.Dir, "kubelet.crt") }
func (s *Serving) ownKey() string  { return filepath.Join(s.cfg.Dir, "kubelet.key") }

// use puts p into use, or leaves what was there where p is nil.
func (s *Serving) use(v *view, p *pair) {
	if p != nil {
		s.pair.Store(p)
	}
	if p = s.pair.Load(); p != nil {
		v.usable, v.leaf = true, p.leaf()
	}
}

// lookFiles follows files of somebody else. While they do not fit together, the
// last that did are shown.
func (s *Serving) lookFiles(now time.Time) view {
	v := view{paths: []string{s.cfg.CertFile, s.cfg.KeyFile}}
	p, err := readPair(s.cfg.CertFile, s.cfg.KeyFile)
	v.problem = err
	s.use(&v, p)
	if v.leaf != nil && now.After(v.leaf.NotAfter) {
		v.problem = errors.Join(v.problem, fmt.Errorf("the serving certificate in %s has expired", s.cfg.CertFile))
	}
	return v
}

// lookOwn keeps a certificate that is signed by itself.
func (s *Serving) lookOwn(now time.Time) view {
	names := *s.names.Load()
	v := view{paths: []string{s.ownCert(), s.ownKey()}, renew: now, wants: names.String()}
	p, err := readPair(s.ownCert(), s.ownKey())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		v.problem = err
	}
	s.use(&v, p)
	if p != nil && p.covers(names) {
		v.renew = renewal(p.leaf())
	}
	return v
}

// sign makes a certificate and keeps it in kubelet.crt and kubelet.key. A kill
// between the two leaves a pair that does not fit, and so is made anew.
func (s *Serving) sign(context.Context, func(string)) (func(time.Time) error, error) {
	names := *s.names.Load()
	return func(now time.Time) error {
		p := s.pair.Load() // one that could not be written is not made again
		if p == nil || !p.covers(names) || !now.Before(renewal(p.leaf())) {
			var err error
			if p, err = selfSign(s.cfg.NodeName, names, now); err != nil {
				return err
			}
		}
		err := errors.Join(s.store.replace(s.ownKey(), p.key, keyMode), s.store.replace(s.ownCert(), p.cert, 0o644))
		if err != nil {
			// A disk that is full or read-only is no reason to show nothing.
			s.pair.Store(p)
		}
		return err
	}, nil
}

// lookSigned keeps a certificate that the cluster signs. There is no other until
// it did: who asked for one that can be verified is not given one that cannot.
func (s *Serving) lookSigned(now time.Time) view {
	names := *s.names.Load()
	v := view{paths: []string{s.store.current()}, wants: names.String()}
	p, err := s.store.load()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		v.problem = err
	}
	s.use(&v, p)
	switch {
	case len(names.IPs) == 0:
		v.problem = errors.Join(v.problem, errors.New("the serving certificate waits for the node's addresses"))
	case p != nil && s.order(names).fits(p) == "":
		v.renew = renewal(p.leaf())
	default:
		v.renew = now
	}
	if v.leaf != nil && now.After(v.leaf.NotAfter) {
		v.problem = errors.Join(v.problem, errors.New("the serving certificate has expired"))
	}
	return v
}

func (s *Serving) order(names Names) order {
	return order{signer: certsv1.KubeletServingSignerName, usage: certsv1.UsageServerAuth, node: s.cfg.NodeName, names: names}
}

func (s *Serving) ask(ctx context.Context, waiting func(string)) (func(time.Time) error, error) {
	if s.cfg.APIReady != nil {
		select {
		case <-s.cfg.APIReady:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return request(ctx, s.cfg.API, s.store, s.order(*s.names.Load()), waiting)
}

// readPair reads a certificate and its key from two files.
func readPair(cert, key string) (*pair, error) {
	c, err := read(cert)
	if err != nil {
		return nil, err
	}
	k, err := read(key)
	if err != nil {
		return nil, err
	}
	p, err := parsePair(c, k)
	if err != nil {
		return nil, fmt.Errorf("read %s and %s: %w", cert, key, err)
	}
	return p, nil
}
