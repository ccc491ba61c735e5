package volume

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// counts is a measurement that tells how often it was made, and hangs for pods
// that it is told of until they are let go.
type counts struct {
	made  atomic.Int64
	hangs map[types.UID]chan struct{}
}

func (c *counts) measure(ctx context.Context, uid types.UID) ([]Usage, error) {
	n := c.made.Add(1)
	if let := c.hangs[uid]; let != nil {
		<-let
		return nil, errors.New("it hung")
	}
	return []Usage{{Name: string(uid), Bytes: uint64(n)}}, ctx.Err()
}

// TestMeter: a pod is counted when somebody asks, once a period however many do,
// and forgotten when it is gone.
func TestMeter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counts{}
		m := newMeter(time.Minute, c.measure)
		read := func(want uint64, uids ...types.UID) {
			t.Helper()
			all := m.read(t.Context(), uids)
			for _, uid := range uids {
				if r := all[uid]; len(r.Volumes) != 1 || r.Volumes[0].Bytes != want || len(all) != len(uids) {
					t.Errorf("read %+v, want count %d of %v", all, want, uids)
				}
			}
		}
		done := make(chan struct{})
		for range 10 {
			go func() { read(1, "a"); done <- struct{}{} }()
		}
		for range 10 {
			<-done
		}
		time.Sleep(time.Minute - 1)
		read(1, "a")
		time.Sleep(1)
		read(2, "a")
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := c.made.Load(); n != 2 {
			t.Errorf("%d counts were made, 2 were asked for", n)
		}
		read(3, "b")
		if len(m.pods) != 1 {
			t.Errorf("kept are %d pods, one is there", len(m.pods))
		}
	})
}

// TestMeterHangs: a count that hangs keeps neither askers nor the counts of other
// pods waiting, and is not begun again; nor does it keep volumes from going.
func TestMeterHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counts{hangs: map[types.UID]chan struct{}{"x": make(chan struct{}), "y": make(chan struct{}), "z": make(chan struct{})}}
		m := newMeter(time.Minute, c.measure)
		ask := func() map[types.UID]Reading {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return m.read(ctx, []types.UID{"x", "y", "z", "a"})
		}
		began := time.Now()
		ask() // the slots may all be taken by what hangs
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %s to say that counts hang", took)
		}
		for range 3 {
			time.Sleep(countTime)
			ask()
		}
		if all := ask(); len(all) != 4 || len(all["a"].Volumes) != 1 || all["x"].Missed != notCounted {
			t.Errorf("beside what hangs is read %+v", all)
		}
		if n := c.made.Load(); n > 4 {
			t.Errorf("%d counts of four pods were begun", n)
		}
		began = time.Now()
		release := m.hold("x")
		if took := time.Since(began); took > holdTime {
			t.Errorf("volumes waited %s for a count that hangs", took)
		}
		for _, let := range c.hangs {
			close(let)
		}
		synctest.Wait()
		if all := ask(); all["x"].Missed != "" || len(all["x"].Volumes) > 0 {
			t.Errorf("of volumes that are being removed is read %+v", all["x"])
		}
		release()
		if m.pods["x"] != nil {
			t.Error("what was removed is kept")
		}
	})
}

// TestMeterHold: the removal of volumes ends a count of them that is under way.
func TestMeterHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(time.Minute, func(ctx context.Context, _ types.UID) ([]Usage, error) {
			<-ctx.Done()
			return []Usage{{Partial: true}}, nil
		})
		go m.read(t.Context(), []types.UID{"a"})
		synctest.Wait()
		began := time.Now()
		m.hold("a")()
		if time.Since(began) > 0 || len(m.pods) > 0 {
			t.Errorf("after %s there are counts of %d pods", time.Since(began), len(m.pods))
		}
	})
}
