// Package nftables owns the table "inet nodeagent-services" of the kernel: the
// rules by which this node serves service addresses. It talks netlink and runs
// no program.
//
// There is no chain a service. Chains are shared by all services that lead to
// the same number of endpoints; what tells services apart are elements of maps,
// so that a change costs as many elements as it concerns. docs/services.md
// shows the rules of one service.
//
// It never touches a table, chain or element that is not in that table, decides
// nothing (a net.Table is what it programs), and starts no goroutine. A Backend
// has one user at a time, but Watch runs beside it.
package nftables
