package podnet

import (
	"errors"
	"time"
)

// clear removes all rules of a backend, for tests that change it.
func (b *nftBackend) clear() error {
	c, err := nftConn(time.Now().Add(linkTimeout))
	if err != nil {
		return err
	}
	c.DelTable(b.set.table())
	if err := c.Flush(); err != nil && !isMissing(err) {
		return err
	}
	return nil
}

func (b *iptBackend) clear() error {
	var errs []error
	for is4, ipt := range b.by {
		for _, j := range b.jumps(is4) {
			errs = append(errs, ipt.DeleteIfExists("nat", j[0], j[1:]...))
		}
		names, _ := b.chains(is4, nil)
		for _, name := range names {
			if ok, err := ipt.ChainExists("nat", name); err == nil && ok {
				errs = append(errs, ipt.ClearChain("nat", name))
			}
		}
		for _, name := range names {
			if ok, err := ipt.ChainExists("nat", name); err == nil && ok {
				errs = append(errs, ipt.DeleteChain("nat", name))
			}
		}
	}
	return errors.Join(errs...)
}
