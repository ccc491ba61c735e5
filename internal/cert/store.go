package cert

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// store is a certificate that is renewed, in kubelet's layout: each one in a
// file of its own, NAME-DATE.pem, and a link NAME-current.pem to the latest. The
// key of a request that is not answered yet is in NAME.key.tmp, so that whoever
// comes after a kill finds the request again instead of making another.
type store struct {
	disk
	dir, name string
}

func (s store) current() string { return filepath.Join(s.dir, s.name+"-current.pem") }

func (s store) keyFile() string { return filepath.Join(s.dir, s.name+".key.tmp") }

// load returns the current certificate; os.ErrNotExist if there is none.
func (s store) load() (*pair, error) {
	text, err := read(s.current())
	if err != nil {
		return nil, err
	}
	p, err := parsePair(text, text)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.current(), err)
	}
	return p, nil
}

// pending returns the key of the request that is under way, or makes one. It is
// on the disk before anything is asked for it. A file without a key in it is
// what a power cut left, and is replaced.
func (s store) pending() (crypto.Signer, []byte, error) {
	text, err := read(s.keyFile())
	if err == nil {
		if key, err := parseKey(text); err == nil && !s.answered(key) {
			return key, text, nil
		}
	}
	key, text, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	return key, text, s.replace(s.keyFile(), text, keyMode)
}

// answered tells whether the key is that of the current certificate: a kill came
// between its arrival and the end of the key's file, and to ask with it again
// would bring the same one.
func (s store) answered(key crypto.Signer) bool {
	p, err := s.load()
	if err != nil {
		return false
	}
	public, ok := p.leaf().PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(key.Public())
}

// forget drops the key of a request that was refused, so that the next one is
// another.
func (s store) forget() error {
	if err := s.remove(s.keyFile()); err != nil {
		return fmt.Errorf("forget the key of a refused request: %w", err)
	}
	return nil
}

// save makes p the current certificate. When it returns nil, that survives a
// power cut; the key of the request goes last.
func (s store) save(p *pair, now time.Time) error {
	path := filepath.Join(s.dir, s.name+now.Format("-2006-01-02-15-04-05")+".pem")
	if err := s.replace(path, bytes.Join([][]byte{p.cert, p.key}, nil), keyMode); err != nil {
		return err
	}
	if err := s.relink(s.current(), path); err != nil {
		return err
	}
	if err := s.remove(s.keyFile()); err != nil {
		return fmt.Errorf("remove the key of an answered request: %w", err)
	}
	return nil
}

// clean removes what is of no use to anybody: files that were not finished, and
// earlier certificates that have expired. Kubelet keeps those, and their keys,
// for ever.
func (s store) clean(now time.Time) {
	sweep(s.dir, s.name)
	dated := regexp.MustCompile(`^` + regexp.QuoteMeta(s.name) + `-\d{4}(-\d\d){5}\.pem$`)
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return // there is no directory yet
	}
	used, err := filepath.EvalSymlinks(s.current())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return
	}
	for _, e := range entries {
		path := filepath.Join(s.dir, e.Name())
		if dated.MatchString(e.Name()) {
			s.drop(path, used, now)
		}
	}
}

// drop removes an earlier certificate that has expired.
func (s store) drop(path, used string, now time.Time) {
	target, err := filepath.EvalSymlinks(path)
	if err != nil || target == used {
		return
	}
	text, err := read(path)
	if err != nil {
		return
	}
	if p, err := parsePair(text, text); err == nil && p.expired(now) {
		_ = os.Remove(path)
	}
}
