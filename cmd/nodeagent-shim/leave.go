//go:build linux

package main

import (
	"time"

	"nodeagent/internal/shimapi"
)

// leaveTime is how long a request to end by signal stays in force: as long as
// systemd waits, at a shutdown, for what it has sent SIGTERM to. It sends it once,
// to the containers and to their shim at the same time.
const leaveTime = 90 * time.Second

// askedToLeave ends the process as soon as nothing runs in it, now or within
// leaveTime. A container that is over and on record needs no shim: who deletes it
// later finds the record.
func (s *service) askedToLeave() bool {
	s.mu.Lock()
	s.leaveBy = time.Now().Add(leaveTime)
	s.mu.Unlock()
	return s.leaveIfAsked()
}

// leaveIfAsked is called once more after each exit.
func (s *service) leaveIfAsked() bool {
	s.mu.Lock()
	leave := time.Now().Before(s.leaveBy) && len(s.plain) == 0 // of these nothing is known
	for _, c := range s.containers {
		leave = leave && c.onRecord()
	}
	if leave && !s.exiting {
		s.hide()
	}
	s.mu.Unlock()
	if leave {
		s.cfg.shutdown.Shutdown()
	}
	return leave
}

// onRecord tells that the container is over and that the disk knows how.
func (c *container) onRecord() bool {
	select {
	case <-c.recorded:
		_, err := shimapi.ReadExit(c.uri.RunDir, c.id)
		return err == nil
	default:
		return false
	}
}
