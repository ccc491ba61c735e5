package nftables

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const probeTimeout = 10 * time.Second

// Probe tells whether the kernel can hold our rules: it makes a table of all that is
// the same however many services there are, which asks for everything that the others
// need, and takes it away, in one transaction, so that nobody sees it. IsMissing says
// of the error whether the kernel lacks that.
func Probe() error {
	b, err := New(Config{Table: fmt.Sprintf("nodeagent-probe-%d", os.Getpid())})
	if err != nil {
		return err
	}
	defer b.Close()
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	c, err := b.open(ctx)
	if err != nil {
		return err
	}
	if err := b.writeFixed(c); err != nil {
		return err
	}
	c.DelTable(b.table)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("make an nftables table: %w", err)
	}
	return nil
}

// missing is how a kernel says that it has no netfilter by netlink, no nf_tables in
// it, or one that is too old or lacks a module: it translates addresses of both
// families from 5.2 on, has ranges in keys of several parts from 5.6 on, and refuses
// before routing from 5.9 on.
var missing = []error{unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.EOPNOTSUPP, unix.EINVAL, unix.ENOENT}

// IsMissing tells whether an error says that the kernel lacks nftables.
func IsMissing(err error) bool {
	return slices.ContainsFunc(missing, func(m error) bool { return errors.Is(err, m) })
}
