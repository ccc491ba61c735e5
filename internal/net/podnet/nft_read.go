package podnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
)

// readBindings reads the published ports back from the table.
func readBindings(s ruleSet) ([]binding, error) {
	c, err := nftConn(time.Now().Add(linkTimeout))
	if err != nil {
		return nil, err
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	if !slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == s.name }) {
		return nil, nil
	}
	var out []binding
	for _, m := range s.maps() {
		els, err := c.GetSetElements(m)
		if err != nil {
			return nil, fmt.Errorf("read map %s: %w", m.Name, err)
		}
		for _, e := range els {
			b, err := decodeBinding(m.Name, string(e.Key), string(e.Val))
			if err != nil {
				return nil, fmt.Errorf("read map %s: %w", m.Name, err)
			}
			out = append(out, b)
		}
	}
	return out, nil
}

// decodeBinding is the inverse of mapOf, mapKey and mapValue.
func decodeBinding(set, key, value string) (binding, error) {
	var b binding
	addrLen := 16
	if strings.HasPrefix(set, "hostports4") {
		addrLen = 4
	}
	if strings.HasSuffix(set, "_ip") {
		if len(key) < addrLen {
			return b, errors.New("key is too short")
		}
		b.HostIP, _ = netip.AddrFromSlice([]byte(key[:addrLen]))
		key = key[addrLen:]
	}
	if len(key) != 8 || len(value) != addrLen+4 {
		return b, errors.New("key or value has a wrong length")
	}
	b.Proto = key[0]
	b.HostPort = binary.BigEndian.Uint16([]byte(key[4:6]))
	b.Pod, _ = netip.AddrFromSlice([]byte(value[:addrLen]))
	b.Container = binary.BigEndian.Uint16([]byte(value[addrLen:][:2]))
	return b, b.check()
}
