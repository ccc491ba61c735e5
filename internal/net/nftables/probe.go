package nftables

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const probeTimeout = 10 * time.Second

// Probe tells whether the kernel can hold our rules: it makes a table that
// translates addresses of both families and takes it away, in one transaction, so
// that nobody sees it. IsMissing says of the error whether the kernel lacks that.
func Probe() error {
	c, err := nftables.New(nftables.WithSockOptions(func(c *netlink.Conn) error { return c.SetDeadline(time.Now().Add(probeTimeout)) }))
	if err != nil {
		return fmt.Errorf("open nftables socket: %w", err)
	}
	t := c.AddTable(&nftables.Table{Name: fmt.Sprintf("nodeagent-probe-%d", os.Getpid()), Family: nftables.TableFamilyINet})
	c.AddChain(&nftables.Chain{
		Name: "nat", Table: t, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
	})
	c.DelTable(t)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("make an nftables table: %w", err)
	}
	return nil
}

// missing is how a kernel says that it has no netfilter by netlink, no nf_tables
// in it, or none that translates addresses of both families.
var missing = []error{unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.EOPNOTSUPP, unix.EINVAL, unix.ENOENT}

// IsMissing tells whether an error says that the kernel lacks nftables.
func IsMissing(err error) bool {
	return slices.ContainsFunc(missing, func(m error) bool { return errors.Is(err, m) })
}
