// Package away holds no code: its test runs the rooms that talk to an API server
// together, as cmd/nodeagent fits them, for days of virtual time in which there is
// none, and measures what they take.
package away
