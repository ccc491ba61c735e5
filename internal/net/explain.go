package net

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Gate is something that a connection to a Service has to pass, as it stands.
type Gate struct {
	Gate      GateName   `json:"gate"`
	State     GateState  `json:"state"`
	Detail    string     `json:"detail,omitempty"`    // what there is, or what is wrong
	LastError string     `json:"lastError,omitempty"` // in full
	Next      *time.Time `json:"nextTry,omitempty"`
	Do        string     `json:"do,omitempty"` // what an operator can do
}

// GateName names one.
type GateName string

// The gates, in order: the daemon knows the Service; it has addresses; somebody may
// answer; here, by the traffic policy; the kernel has rules that say so; and the node
// forwards.
const (
	GateService   GateName = "service"
	GateAddresses GateName = "addresses"
	GateEndpoints GateName = "endpoints"
	GatePolicy    GateName = "policy"
	GateRules     GateName = "rules"
	GateNode      GateName = "node"
)

// GateState says how a gate stands, as it does of pods.
type GateState string

// States of a gate.
const (
	GatePassed     GateState = "passed"
	GateWaiting    GateState = "waiting"     // for what comes by itself
	GateBlocked    GateState = "blocked"     // something has to change
	GateUnknown    GateState = "unknown"     // nobody there can tell
	GateNotReached GateState = "not reached" // one before it blocks
)

// Loop is how it stands with the loop that writes rules.
type Loop struct {
	Mode    string     `json:"mode"`
	Begun   bool       `json:"rulesWritten"`            // the kernel was told something once
	Waiting *time.Time `json:"changeWaiting,omitempty"` // since when a change waits for its rules
	Failure string     `json:"lastError,omitempty"`
	Next    *time.Time `json:"nextTry,omitempty"`
	Trouble []string   `json:"problems,omitempty"` // with the API server
}

// Ground is what a look at the node found.
type Ground struct {
	Mode        string            `json:"mode,omitempty"` // whose rules were looked at
	Held        []Held            `json:"held,omitempty"` // for the service's addresses; a node port also as addresses of the node
	Unread      string            `json:"error,omitempty"`
	Settings    map[string]string `json:"settings,omitempty"`     // sysctls
	Drops       []string          `json:"forwardDrops,omitempty"` // chains that drop what passes through and no rule accepts
	Connections *int              `json:"connections,omitempty"`  // to its addresses; nil: they could not be counted
}

// Explanation says why a Service answers or not, gate by gate.
type Explanation struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Summary is one sentence that names the gate that blocks and what to do.
	Summary   string          `json:"summary"`
	Blocks    *Gate           `json:"blocks,omitempty"` // nil: none does
	Gates     []Gate          `json:"gates"`
	Addresses []AddressState  `json:"addresses,omitempty"`
	Endpoints []EndpointFacts `json:"endpoints,omitempty"`
	Slices    []string        `json:"endpointSlices,omitempty"`
	Findings  []Finding       `json:"findings,omitempty"`
	Health    *HealthFacts    `json:"healthCheck,omitempty"`
	Loop      *Loop           `json:"loop,omitempty"` // nil: the daemon does not tell
	Node      Ground          `json:"node"`
}

// AddressState is an address as it shall be and as the kernel has it.
type AddressState struct {
	AddressFacts
	Kernel string `json:"kernel"` // present, different, missing, or unknown
	Held   *Held  `json:"held,omitempty"`
}

// ExplainService explains a Service of which the daemon told.
func ExplainService(f Facts, l Loop, g Ground) Explanation {
	x := Explanation{
		Namespace: f.Namespace, Name: f.Name, Endpoints: f.Endpoints, Slices: f.Slices, Findings: f.Findings, Health: f.Health,
		Loop: &l, Node: g,
	}
	for _, a := range f.Addresses {
		x.Addresses = append(x.Addresses, g.hold(a))
	}
	x.Gates = []Gate{serviceGate(f, l), addressesGate(f), endpointsGate(f), policyGate(f), x.rulesGate(l), g.gate(f)}
	x.sum()
	return x
}

// ExplainHeld explains one of which there is nothing but what the kernel holds.
func ExplainHeld(k Key, g Ground) Explanation {
	x := Explanation{Namespace: k.Namespace, Name: k.Name, Node: g}
	for _, h := range g.Held {
		x.Addresses = append(x.Addresses, AddressState{AddressFacts{Address: h.Address, Kind: h.kind(), Endpoints: h.Endpoints}, "present", &h})
	}
	rules := Gate{Gate: GateRules, State: GatePassed, Detail: fmt.Sprintf("the kernel has %s by mode %s, as an earlier daemon left them", counted(len(g.Held), "address"), g.Mode)}
	switch {
	case g.Unread != "":
		rules.State, rules.Detail, rules.LastError = GateUnknown, "", g.Unread
	case g.Mode == "ipvs" && len(g.Held) == 0:
		rules.State, rules.Detail = GateUnknown, "virtual servers have no names: look for its address in ipvsadm -Ln"
	case len(g.Held) == 0:
		rules.State, rules.Detail = GateBlocked, "the kernel has no rules for a service of this name"
		rules.Do = "start the daemon"
	}
	const dead = "the daemon does not tell"
	x.Gates = []Gate{
		{Gate: GateService, State: GateUnknown, Detail: dead}, {Gate: GateAddresses, State: GateUnknown, Detail: dead},
		{Gate: GateEndpoints, State: GateUnknown, Detail: dead}, {Gate: GatePolicy, State: GateUnknown, Detail: dead}, rules, g.gate(Facts{}),
	}
	x.sum()
	return x
}

// kind is what the comment says of the address.
func (h Held) kind() string {
	_, kind, _ := strings.Cut(h.Service, " ")
	return kind
}

// sum names the gate that blocks; those behind it are not reached. What the kernel and the
// node have is told in any case.
func (x *Explanation) sum() {
	who := "service " + x.Namespace + "/" + x.Name
	for i := range x.Gates {
		g := &x.Gates[i]
		if x.Blocks != nil && g.Gate != GateNode && g.Gate != GateRules && g.State != GateUnknown {
			*g = Gate{Gate: g.Gate, State: GateNotReached}
		}
		if x.Blocks == nil && (g.State == GateBlocked || g.State == GateWaiting) {
			x.Blocks = g
		}
	}
	switch b := x.Blocks; {
	case b == nil && x.Loop == nil:
		x.Summary = who + ": what the kernel has for it; the daemon does not tell whether that is right"
	case b == nil:
		x.Summary = fmt.Sprintf("%s: nothing on this node keeps its addresses from being answered", who)
	default:
		x.Blocks = new(*b)
		x.Summary = fmt.Sprintf("%s: %s at %s: %s", who, b.State, b.Gate, strings.TrimSuffix(b.Detail+": "+b.LastError, ": "))
		if b.Do != "" {
			x.Summary += "; " + b.Do
		}
	}
}

func serviceGate(f Facts, l Loop) Gate {
	g := Gate{Gate: GateService, State: GatePassed, Detail: "the daemon knows it; mode " + l.Mode}
	switch {
	case len(l.Trouble) > 0 && !f.Seen:
		g.State, g.Detail = GateWaiting, strings.Join(l.Trouble, "; ")
	case !f.Seen:
		g.State, g.Detail = GateBlocked, "no such Service is seen; those with the label service.kubernetes.io/service-proxy-name are another proxy's and not watched"
		g.Do = "look for it: kubectl get service -n " + f.Namespace + " " + f.Name
	case f.Ignored != "":
		g.State, g.Detail = GateBlocked, "no rules are made for it: "+f.Ignored
	case len(l.Trouble) > 0:
		g.Detail += "; what changes is not seen: " + strings.Join(l.Trouble, "; ")
	}
	return g
}

func addressesGate(f Facts) Gate {
	g := Gate{Gate: GateAddresses, State: GatePassed, Detail: counted(len(f.Addresses), "address")}
	var left []string
	for _, x := range f.Findings {
		if !strings.HasPrefix(string(x.Reason), "Endpoint") && x.Reason != ReasonRefused {
			left = append(left, x.Message)
		}
	}
	if len(left) > 0 {
		g.Detail += "; " + strings.Join(left, "; ")
	}
	if len(f.Addresses) == 0 {
		g.State = GateBlocked
		for _, x := range f.Findings {
			if x.Reason == ReasonRefused {
				g.Detail = x.Message
				g.Do = "change it, or its endpoints: then the kernel is asked anew"
			}
		}
	}
	return g
}

func endpointsGate(f Facts) Gate {
	n := map[string]int{}
	chosen, why := 0, map[string]int{}
	for _, e := range f.Endpoints {
		n[e.State]++
		if e.Chosen {
			chosen++
		} else {
			why[e.Why]++
		}
	}
	g := Gate{Gate: GateEndpoints, State: GatePassed}
	g.Detail = fmt.Sprintf("%d of %s chosen: %d ready, %d draining, %d not ready", chosen, counted(len(f.Endpoints), "endpoint"), n["ready"], n["draining"], n["not ready"])
	var left []string
	for w, n := range why {
		left = append(left, fmt.Sprintf("%d left out: %s", n, w))
	}
	slices.Sort(left)
	for _, x := range f.Findings {
		if strings.HasPrefix(string(x.Reason), "Endpoint") {
			left = append(left, x.Message)
		}
	}
	g.Detail = strings.Join(append([]string{g.Detail}, left...), "; ")
	switch {
	case len(f.Slices) == 0:
		g.State, g.Detail = GateBlocked, "there is no EndpointSlice: callers are refused"
		g.Do = "does its selector match pods? kubectl get endpointslices -n " + f.Namespace + " -l kubernetes.io/service-name=" + f.Name
	case chosen == 0:
		g.State = GateBlocked
		g.Detail = "nobody answers, and callers are refused: " + g.Detail
	}
	return g
}

func policyGate(f Facts) Gate {
	g := Gate{Gate: GatePolicy, State: GatePassed, Detail: "policy Cluster"}
	var dropped []string
	some, kept := false, false
	for _, a := range f.Addresses {
		if a.Inside == Drop.String() || a.Outside == Drop.String() {
			dropped = append(dropped, a.Kind+" "+a.Address)
		}
		some = some || a.Inside != Drop.String() || a.Outside != Drop.String()
		kept = kept || a.Inside == ToLocal.String() || a.Outside == ToLocal.String()
	}
	if kept {
		g.Detail = "policy Local, and there are endpoints on this node"
	}
	if len(dropped) > 0 {
		g.Detail = "policy Local without an endpoint on this node drops callers of " + strings.Join(dropped, ", ")
		g.Do = "call a node that has one, or say Cluster"
		if !some {
			g.State = GateBlocked
		} else {
			g.Detail += "; pods and the node itself are served at addresses other than the cluster IP"
		}
	}
	return g
}

// hold holds an address against what the kernel has for it.
func (g Ground) hold(f AddressFacts) AddressState {
	out := AddressState{AddressFacts: f, Kernel: "missing"}
	if g.Unread != "" || g.Mode == "" {
		out.Kernel = "unknown"
		return out
	}
	i := slices.IndexFunc(g.Held, func(h Held) bool { return h.Address == f.Address })
	if i < 0 && g.Mode == "ipvs" && f.Kind == NodePort.String() {
		i = slices.IndexFunc(g.Held, func(h Held) bool { return sameNodePort(h.Address, f.Address) })
	}
	if a, err := ParseAddress(f.Address); i < 0 && err == nil && f.Inside == Refuse.String() {
		i = slices.IndexFunc(g.Held, func(h Held) bool { return h.Closed == Refuse.String() && h.Covers(a.IP) })
	}
	if i < 0 {
		return out
	}
	h := g.Held[i]
	out.Held, out.Kernel = &h, "different"
	if slices.Equal(h.Endpoints, f.Endpoints) && (len(f.Endpoints) > 0 || h.Closed != "") || f.Ranged && len(f.Ranges) == 0 {
		out.Kernel = "present"
	}
	return out
}

// sameNodePort tells whether an address of the node stands for a node port.
func sameNodePort(held, port string) bool {
	a, proto, _ := strings.Cut(held, "/")
	b, want, _ := strings.Cut(port, "/")
	x, err1 := netip.ParseAddrPort(a)
	y, err2 := netip.ParseAddrPort(b)
	return err1 == nil && err2 == nil && proto == want && x.Port() == y.Port() && x.Addr().Is4() == y.Addr().Is4()
}

func (x *Explanation) rulesGate(l Loop) Gate {
	g := Gate{Gate: GateRules, State: GatePassed, LastError: l.Failure, Next: l.Next}
	n := map[string]int{}
	var wrong []string
	for _, a := range x.Addresses {
		n[a.Kernel]++
		if a.Kernel == "missing" || a.Kernel == "different" {
			wrong = append(wrong, a.Address+" is "+a.Kernel)
		}
	}
	g.Detail = fmt.Sprintf("the kernel has %d of %s as they shall be", n["present"], counted(len(x.Addresses), "address"))
	if x.Node.Connections != nil {
		g.Detail += "; " + counted(*x.Node.Connections, "connection")
	}
	switch {
	case !l.Begun:
		g.State, g.Detail = GateWaiting, "no rules were written yet: all Services, EndpointSlices and the Node have to be known first"
		if len(l.Trouble) > 0 {
			g.Detail += "; " + strings.Join(l.Trouble, "; ")
		}
	case x.Node.Unread != "":
		g.State, g.Detail, g.LastError = GateUnknown, "the kernel's rules cannot be read", strings.TrimPrefix(l.Failure+"; "+x.Node.Unread, "; ")
	case len(wrong) > 0:
		g.State, g.Detail = GateWaiting, strings.Join(wrong, ", ")+": what somebody else changed is put back by itself"
	case l.Failure != "" || l.Waiting != nil:
		g.Detail += "; others wait for theirs"
	}
	return g
}

// gate is what the node itself needs so that packets get through it.
func (g Ground) gate(f Facts) Gate {
	out := Gate{Gate: GateNode, State: GatePassed}
	var all []string
	for _, name := range sortedKeys(g.Settings) {
		all = append(all, name+"="+g.Settings[name])
	}
	for _, family := range []struct{ sign, name string }{{".", "net.ipv4.ip_forward"}, {":", "net.ipv6.conf.all.forwarding"}} {
		asked := slices.ContainsFunc(f.Addresses, func(a AddressFacts) bool { return strings.HasPrefix(a.Address, "[") == (family.sign == ":") })
		if asked && g.Settings[family.name] == "0" {
			out.State, out.Do = GateBlocked, "sysctl -w "+family.name+"=1"
			all = append([]string{"packets are not forwarded to pods"}, all...)
		}
	}
	for _, d := range g.Drops {
		all = append(all, d+" drops what passes through and no rule accepts")
	}
	out.Detail = strings.Join(all, ", ")
	return out
}

func sortedKeys(m map[string]string) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func counted(n int, what string) string {
	switch {
	case n == 1:
		return "1 " + what
	case strings.HasSuffix(what, "s"):
		return fmt.Sprintf("%d %ses", n, what)
	}
	return fmt.Sprintf("%d %ss", n, what)
}
