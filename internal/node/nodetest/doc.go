// Package nodetest holds an API server in memory, as far as a node's own objects
// go: its Node and its lease, over HTTP in JSON and protobuf, with versions,
// UIDs, preconditions, strategic merge patches and watches as the real one has
// them. It refuses what the Node authorizer refuses.
//
// Clients reach it by Dial, over pipes, so that it can live in a testing/synctest
// bubble. Faults are given by a function of the request. It is safe for
// concurrent use.
package nodetest
