package nftables

import (
	"reflect"
	"slices"
	"testing"

	"github.com/google/nftables/expr"

	"nodeagent/internal/net/hosttest"
)

// untold are fields that kernels tell nothing of, or that follow from others.
var untold = map[string]bool{
	"Payload.CsumType": true, "Payload.CsumOffset": true, "Payload.CsumFlags": true, "Ct.Direction": true,
	"Lookup.SetID": true, "Dynset.SetID": true, "Dynset.Exprs": true, "NAT.Specified": true,
}

// TestAlike: a rule in which one thing is another is another rule; one in the words
// of the kernel is the same.
func TestAlike(t *testing.T) {
	b, err := New(Config{Pods: hosttest.Pods, PodInterfaces: []string{"veth+"}})
	must(t, err)
	all := b.fixed()
	for _, p := range []pick{{n: 3, keep: 60}, {how: keeper, keep: 60}, {how: mixed, n: 3, local: 1}, {v6: true, by: nodeport, how: masked, n: 2}} {
		all = append(all, chain{name: p.name(), rules: b.rulesOf(p)})
	}
	for _, ch := range all {
		for _, r := range ch.rules {
			if !alike([]rule{r}, []rule{r}) {
				t.Errorf("chain %s: a rule is not like itself", ch.name)
			}
			for j, e := range r.exprs {
				for name, x := range edits(t, e) {
					exprs := slices.Clone(r.exprs)
					exprs[j] = x
					if alike([]rule{{r.text, exprs}}, []rule{r}) {
						t.Errorf("chain %s: a rule with another %s passes for ours", ch.name, name)
					}
				}
			}
		}
	}
	f := ipv6
	have := exprs{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 24, Len: 16},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: 10, RegAddrMin: 3, RegAddrMax: 3, RegProtoMin: 4, RegProtoMax: 4, Specified: true},
	}
	if !alike([]rule{{"", have}}, []rule{{"", join(f.load(f.daddr, 0), f.dnat(8))}}) {
		t.Error("our rule, as the kernel tells it, passes for another one")
	}
}

// edits are an expression with one field changed, by the field.
func edits(t *testing.T, e expr.Any) map[string]expr.Any {
	t.Helper()
	out := map[string]expr.Any{}
	is := reflect.ValueOf(e).Elem()
	for k := range is.NumField() {
		name := is.Type().Name() + "." + is.Type().Field(k).Name
		if untold[name] {
			continue
		}
		x := reflect.New(is.Type())
		x.Elem().Set(is)
		switch f := x.Elem().Field(k); f.Kind() {
		case reflect.Bool:
			f.SetBool(!f.Bool())
		case reflect.String:
			f.SetString(f.String() + "x")
		case reflect.Slice:
			data := slices.Clone(f.Bytes())
			data[len(data)-1] ^= 1
			f.SetBytes(data)
		default:
			if f.CanInt() {
				f.SetInt(f.Int() + 1)
			} else {
				f.SetUint(f.Uint() + 1)
			}
		}
		out[name] = x.Interface().(expr.Any)
	}
	return out
}
