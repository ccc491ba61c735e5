package nftables

import (
	"context"
	"fmt"

	"github.com/google/nftables"
)

// proxyTable is kube-proxy's name of its tables, one a family.
const proxyTable = "kube-proxy"

// TakeOver removes the tables that a kube-proxy left in nftables mode, and says
// which there were. It is for when our own rules are in force: connections that
// kube-proxy's rules led go on, since the kernel remembers them without rules.
func (b *Backend) TakeOver(ctx context.Context) ([]string, error) {
	c, err := b.open(ctx)
	if err != nil {
		return nil, b.end(err)
	}
	tables, err := c.ListTables()
	if err != nil {
		return nil, b.end(fmt.Errorf("list tables: %w", err))
	}
	var gone []string
	for _, t := range tables {
		if t.Name == proxyTable && (t.Family == nftables.TableFamilyIPv4 || t.Family == nftables.TableFamilyIPv6) {
			c.DelTable(t)
			gone = append(gone, map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "ip ", nftables.TableFamilyIPv6: "ip6 "}[t.Family]+t.Name)
		}
	}
	if len(gone) == 0 {
		return nil, nil
	}
	if err := c.Flush(); err != nil && !moved(err) {
		return nil, b.end(fmt.Errorf("remove kube-proxy's tables: %w", err))
	} else if err != nil {
		return nil, b.end(nil) // somebody else did so meanwhile
	}
	return gone, nil
}
