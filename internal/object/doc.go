// Package object owns what the API server has for the pods of this node beside
// the pods themselves: ConfigMaps, Secrets, claims with their volumes, and the
// tokens of service accounts.
//
// It reads an object while a pod refers to it, one at a time and by its name, as
// the node authorizer demands, and keeps in memory what pods need of it. It never
// writes to the API server (a token is asked for, not written), never keeps
// anything on a disk, never says that an object does not exist unless the API
// server said so, and never logs what an object holds.
//
// Keep says which pods there are. All methods may be called from any goroutine
// and, but for Await and Run, never block. Run owns all goroutines: one for each
// object that is watched, and one for each request that is under way. Changed is
// called from these, never with a lock held.
package object
