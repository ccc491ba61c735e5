// Package iptables owns the chains NODEAGENT-SERVICES and what hangs on them in
// the tables nat and filter of the kernel: the rules by which this node serves
// service addresses where it has no nf_tables, or where other software wants
// iptables. It runs iptables-save and iptables-restore, of the flavour (nft or
// legacy) in which the node's other rules are.
//
// A service that has a cluster IP, few endpoints and nothing else is one rule an
// endpoint; any other is one small chain that picks an endpoint, and one rule an
// address that leads there. All these rules stand in trees of small chains, so
// that neither a packet nor a change walks them all. What is written is whole
// chains, or rules that came to one or went, in one run of iptables-restore --noflush.
// docs/services.md shows the rules of one service. In the nft flavour a program stays while
// small changes are frequent, and is fed with them.
//
// It never touches a rule that is not in a chain of ours, but for the jumps from
// the kernel's own chains to ours; it decides nothing (a net.Table is what it
// programs), and no goroutine outlives the call that starts it, but for the timer that
// ends a program that stays when it has rested for a minute; Close ends it, too, and
// the end of the daemon. A Backend has one
// user at a time, but Watch runs beside it.
package iptables
