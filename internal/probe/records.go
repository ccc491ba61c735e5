package probe

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"nodeagent/internal/durable"
	"nodeagent/internal/pod"
)

// loadRecords reads what an earlier daemon left, once.
func (s *Set) loadRecords() {
	all, err := s.cfg.Records.Load()
	if err != nil {
		s.cfg.Logger.Warn("read verdicts of probes: what cannot be read is judged anew", "err", err)
	}
	s.mu.Lock()
	s.records = all
	s.mu.Unlock()
}

// removeRecords removes the records of runs that have ended.
func (s *Set) removeRecords() {
	s.mu.Lock()
	ids := s.dropped
	s.dropped = nil
	s.mu.Unlock()
	for _, id := range ids {
		if err := s.cfg.Records.Remove(id); err != nil {
			s.cfg.Logger.Warn("remove the verdict on a run that has ended", "container", id, "err", err)
		}
	}
}

// Stray removes the records of containers that no longer run. It is called when
// it is known what runs.
func (s *Set) Stray(runs func(container string) bool) {
	s.load.Do(s.loadRecords)
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.records {
		if !runs(id) {
			delete(s.records, id)
			s.dropped = append(s.dropped, id)
		}
	}
	s.wake()
}

// recordVersion is the version of the record's content.
const recordVersion = 1

// record is a verdict as it is written.
type record struct {
	Started   bool   `json:"started"`
	Ready     bool   `json:"ready"`
	Unhealthy string `json:"unhealthy,omitempty"`
	Grace     *int64 `json:"grace,omitempty"`
}

// Files keeps records as files, one a container, in a directory that a reboot
// empties.
type Files struct{ dir *durable.Dir }

// NewFiles returns the records of a daemon's run directory.
func NewFiles(runDir string) (*Files, error) {
	dir, err := durable.New(durable.Config{Path: filepath.Join(runDir, "probes")})
	if err != nil {
		return nil, err
	}
	return &Files{dir}, nil
}

// Load implements Records. Of what cannot be read the rest is returned.
func (f *Files) Load() (map[string]pod.Health, error) {
	if _, err := f.dir.Prepare(); err != nil {
		return nil, err
	}
	return f.read(f.dir.Load)
}

// Peek reads what a daemon left, for who may only look.
func (f *Files) Peek() (map[string]pod.Health, error) { return f.read(f.dir.Peek) }

func (f *Files) read(load func(string, func(uint32, []byte) error) (durable.Loaded, error)) (map[string]pod.Health, error) {
	names, err := f.dir.Names()
	if err != nil {
		return nil, err
	}
	all := make(map[string]pod.Health, len(names))
	var errs []error
	for _, name := range names {
		var r record
		loaded, err := load(name, func(version uint32, payload []byte) error {
			if version != recordVersion {
				return fmt.Errorf("version %d is not known", version)
			}
			return json.Unmarshal(payload, &r)
		})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if loaded.Payload != nil {
			all[name] = pod.Health(r)
		}
	}
	return all, errors.Join(errs...)
}

// Save implements Records.
func (f *Files) Save(container string, h pod.Health) error {
	payload, err := json.Marshal(record(h))
	if err != nil {
		return fmt.Errorf("encode a verdict: %w", err)
	}
	err = f.dir.Save(container, recordVersion, payload)
	if errors.Is(err, os.ErrNotExist) { // somebody emptied the run directory
		if _, err := f.dir.Prepare(); err != nil {
			return err
		}
		return f.dir.Save(container, recordVersion, payload)
	}
	return err
}

// Remove implements Records.
func (f *Files) Remove(container string) error { return f.dir.Remove(container) }
