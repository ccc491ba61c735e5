package net

import (
	"cmp"
	"net/netip"
	"slices"
)

// claim says that a service wants an address.
type claim struct {
	key  Key
	kind Kind
	born int64
	port string
}

func (c claim) compare(o claim) int {
	return cmp.Or(cmp.Compare(c.kind, o.kind), cmp.Compare(c.born, o.born), c.key.compare(o.key), cmp.Compare(c.port, o.port))
}

// claims knows who wants which address. Who gets it depends on the claims
// alone, not on the order in which they came: first the smaller kind, then the
// older service, then the smaller name.
type claims struct {
	by map[Address][]claim // sorted; the first one has it
	// clusterIPs counts the services of each cluster IP, outer the services that
	// want an address by another kind: none of them gets a port of a cluster IP
	// that its service left free (CVE-2020-8554).
	clusterIPs map[netip.Addr]int32
	outer      map[netip.Addr]map[Key]bool
}

func newClaims() claims {
	return claims{map[Address][]claim{}, map[netip.Addr]int32{}, map[netip.Addr]map[Key]bool{}}
}

// wants calls f with every address that s claims.
func (s *service) wants(f func(Address, claim)) {
	for _, p := range s.ports {
		c := claim{s.key, ClusterIP, s.born, p.name}
		for _, ip := range s.clusterIPs {
			c.kind = ClusterIP
			f(Address{ip, p.port, p.proto}, c)
			if p.nodePort != 0 {
				c.kind = NodePort
				f(Address{anyAddress(familyOf(ip)), p.nodePort, p.proto}, c)
			}
			s.outside(familyOf(ip), func(a netip.Addr, k Kind) {
				c.kind = k
				f(Address{a, p.port, p.proto}, c)
			})
		}
	}
	if s.healthPort != 0 {
		f(healthAddress(s.healthPort), claim{s.key, health, s.born, ""})
	}
}

// healthAddress has no IP: it is a name in claims only.
func healthAddress(port uint16) Address { return Address{Port: port, Proto: TCP} }

// outside calls f with the addresses of one family that are not the cluster's.
func (s *service) outside(fam Family, f func(netip.Addr, Kind)) {
	for _, a := range s.balancers {
		if familyOf(a) == fam {
			f(a, Balancer)
		}
	}
	for _, a := range s.external {
		if familyOf(a) == fam {
			f(a, External)
		}
	}
}

// add enters the claims of s and calls dirty with all others whom that concerns:
// they have an address no more, or are told of another owner.
func (cs *claims) add(s *service, dirty func(Key)) {
	s.wants(func(a Address, c claim) {
		list := cs.by[a]
		i, found := slices.BinarySearchFunc(list, c, claim.compare)
		if i == 0 { // else nobody gets or loses the address
			for _, o := range list {
				dirty(o.key)
			}
		}
		if !found {
			cs.by[a] = slices.Insert(list, i, c)
		}
		if c.kind == Balancer || c.kind == External {
			if cs.outer[a.IP] == nil {
				cs.outer[a.IP] = map[Key]bool{}
			}
			cs.outer[a.IP][s.key] = true
		}
	})
	for _, ip := range s.clusterIPs {
		if cs.clusterIPs[ip]++; cs.clusterIPs[ip] == 1 {
			cs.wake(ip, dirty)
		}
	}
}

// remove takes the claims of s back.
func (cs *claims) remove(s *service, dirty func(Key)) {
	s.wants(func(a Address, c claim) {
		list := cs.by[a]
		i, found := slices.BinarySearchFunc(list, c, claim.compare)
		if found {
			list = slices.Delete(list, i, i+1)
		}
		if len(list) == 0 {
			delete(cs.by, a)
		} else {
			cs.by[a] = list
		}
		if i == 0 {
			for _, o := range list {
				dirty(o.key)
			}
		}
		if delete(cs.outer[a.IP], s.key); len(cs.outer[a.IP]) == 0 {
			delete(cs.outer, a.IP)
		}
	})
	for _, ip := range s.clusterIPs {
		if cs.clusterIPs[ip]--; cs.clusterIPs[ip] == 0 {
			delete(cs.clusterIPs, ip)
			cs.wake(ip, dirty)
		}
	}
}

func (cs *claims) wake(ip netip.Addr, dirty func(Key)) {
	for k := range cs.outer[ip] {
		dirty(k)
	}
}

// winner returns who has the address.
func (cs *claims) winner(a Address) claim { return cs.by[a][0] }
