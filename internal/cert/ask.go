package cert

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
)

// ask gets a new client certificate, as who we are or by the bootstrap
// kubeconfig.
func (c *Client) ask(ctx context.Context, waiting func(string)) (func(time.Time) error, error) {
	c.shared.Lock()
	by := c.shared.via
	c.shared.Unlock()
	if by.write {
		return func(time.Time) error { return c.writeKubeconfig(by.boot) }, nil
	}
	if by.boot != nil {
		return c.askBy(ctx, &identity{login: by.boot, pair: by.boot.pair}, waiting, func() error { return c.writeKubeconfig(by.boot) })
	}
	id := c.id.Load()
	if id == nil {
		return nil, errNoIdentity
	}
	keep, err := c.askBy(ctx, id, waiting, func() error { return nil })
	if apierrors.IsUnauthorized(err) {
		// The next attempt is by the bootstrap kubeconfig, if there is one.
		c.shared.Lock()
		c.shared.rejected = id.pair
		c.shared.Unlock()
	}
	return keep, err
}

// askBy asks over connections that end with the attempt.
func (c *Client) askBy(ctx context.Context, id *identity, waiting func(string), then func() error) (func(time.Time) error, error) {
	base, err := baseOf(id.login)
	if err != nil {
		return nil, err
	}
	w, err := connect(id, c.cfg.dial)
	if err != nil {
		return nil, err
	}
	defer w.close()
	keep, err := request(ctx, &rest.Config{Host: base.String(), Transport: w.rt}, c.store, c.order(), waiting)
	if err != nil {
		return keep, err
	}
	return func(now time.Time) error {
		if err := keep(now); err != nil {
			return err
		}
		return then()
	}, nil
}

// request gets what is ordered signed for the store's pending key. It writes that
// key alone; what it returns saves the certificate, or, with a refusal, drops the
// key.
func request(ctx context.Context, cfg *rest.Config, s store, o order, waiting func(string)) (func(time.Time) error, error) {
	api, err := dialRequests(cfg)
	if err != nil {
		return nil, err
	}
	key, keyPEM, err := s.pending()
	if err != nil {
		return nil, err
	}
	text, err := api.obtain(ctx, o, key, waiting)
	var p *pair
	if err == nil {
		p, err = judged(text, keyPEM, o)
	}
	if errors.As(err, new(refusal)) {
		return func(time.Time) error { return s.forget() }, err
	}
	if err != nil {
		return nil, err
	}
	return func(now time.Time) error {
		if err := s.save(p, now); err != nil {
			return err
		}
		s.clean(now)
		return nil
	}, nil
}

// judged is the signed certificate, if it is what was ordered.
func judged(text, key []byte, o order) (*pair, error) {
	p, err := parsePair(text, key)
	if err != nil {
		return nil, refusal{"of this node", fmt.Sprintf("what was signed is of no use: %v", err)}
	}
	if why := o.fits(p); why != "" {
		return nil, refusal{"of this node", "what was signed is of no use: " + why}
	}
	return p, nil
}
