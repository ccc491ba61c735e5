// Package ipvs owns the virtual servers by which the kernel's IPVS serves service
// addresses, the device kube-ipvs0 that has these addresses, the sets
// NODEAGENT-… that say who may call them and who is masqueraded, and the chains
// NODEAGENT-IPVS-… of a few fixed rules that look into the sets. It talks
// netlink, and runs iptables-save and iptables-restore for the fixed rules.
//
// What the kernel shall hold is made by pure functions (want.go); it is compared
// with what it holds by key, and only the difference is written. A server or an
// endpoint that still has connections is quiesced first, and goes when they have
// ended.
//
// It never touches a virtual server at an address that is not its own, a mark of
// another kind, a set or a chain of another name, but for the jumps from the
// kernel's own chains to ours; it decides nothing (a net.Table is what it
// programs). A Backend has one user at a time, but Watch runs beside it, with
// goroutines that end with it.
package ipvs
