package object

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"nodeagent/internal/durable"
	"nodeagent/internal/pod"
)

// The file of the services, and the version of what is in it: JSON.
const (
	keptName    = "services"
	keptVersion = 1
)

// How long what was kept does not count, since the API server may be about to tell;
// how long a change waits for more, and how long a write is rested after.
const (
	keptAfter = 10 * time.Second
	keptWait  = time.Second
	keptRest  = time.Minute
)

// Keep keeps in a directory what containers are told of services, until ctx ends. A
// daemon that starts while there is no API server tells them what its predecessor
// knew: a container that crashes then must not wait for days. Losing the file costs
// only that.
func (s *Services) Keep(ctx context.Context, dir *durable.Dir) error {
	if _, err := dir.Prepare(); err != nil {
		s.log.Warn("the services are not kept over a restart without the API server", "err", err)
	}
	kept, held := s.load(dir)
	late := time.NewTimer(keptAfter)
	defer late.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.read:
	case <-late.C:
		if held != nil {
			s.log.Warn("tell containers of the services as they were before, until the API server is heard")
			s.believe(kept)
		}
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.changed:
		}
		if !pause(ctx, keptWait) {
			return ctx.Err()
		}
		if now := s.encode(); !bytes.Equal(now, held) {
			if err := dir.Save(keptName, keptVersion, now); err != nil {
				s.log.Warn("keep the services in memory only, and write them later", "err", err)
				s.tellChanged()
			} else {
				held = now
			}
			if !pause(ctx, keptRest) {
				return ctx.Err()
			}
		}
	}
}

// pause lets a time go by; false: ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	over := time.NewTimer(d)
	defer over.Stop()
	select {
	case <-over.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// load reads what an earlier daemon knew; held is nil where there is nothing.
func (s *Services) load(dir *durable.Dir) (kept byName, held []byte) {
	found, err := dir.Load(keptName, func(version uint32, payload []byte) (err error) {
		if version != keptVersion {
			return fmt.Errorf("version %d of the services is not known", version)
		}
		kept, err = decodeServices(payload)
		return err
	})
	for _, bad := range found.Bad {
		s.log.Warn("go on without the services that were kept", "file", bad.Path, "aside", bad.Aside, "err", bad.Reason)
	}
	if err != nil || found.Generation == durable.None {
		return nil, nil
	}
	return kept, found.Payload
}

func decodeServices(payload []byte) (byName, error) {
	var list []pod.Service
	if err := json.Unmarshal(payload, &list); err != nil {
		return nil, fmt.Errorf("decode services: %w", err)
	}
	all := byName{}
	for _, one := range list {
		if one.Namespace == "" || one.Name == "" || len(one.Ports) == 0 {
			return nil, errors.New("decode services: one has no name or no port")
		}
		all.put(one)
	}
	return all, nil
}

// encode is all that is known, in an order of its own.
func (s *Services) encode() []byte {
	s.mu.Lock()
	var list []pod.Service
	for _, of := range s.all {
		for _, one := range of {
			list = append(list, one)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(list, func(a, b pod.Service) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	text, err := json.Marshal(list)
	if err != nil {
		s.log.Error("cannot encode the services", "err", err)
	}
	return text
}

// believe takes what was kept for what there is, unless all were told meanwhile.
func (s *Services) believe(kept byName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.read:
	default:
		s.all = kept
		s.once.Do(func() { close(s.read) })
	}
}

// tellChanged wakes Keep, if it runs. It never blocks.
func (s *Services) tellChanged() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}
