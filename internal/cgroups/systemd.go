package cgroups

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"nodeagent/internal/pod"
)

// Units is what is asked of systemd; *dbus.Conn of go-systemd has it.
type Units interface {
	StartTransientUnitContext(ctx context.Context, name, mode string, properties []dbus.Property, ch chan<- string) (int, error)
	StopUnitContext(ctx context.Context, name, mode string, ch chan<- string) (int, error)
	SetUnitPropertiesContext(ctx context.Context, name string, runtime bool, properties ...dbus.Property) error
}

// systemd makes slices over one connection that all callers share and that is
// made anew when it broke: a restart of D-Bus costs one retry.
type systemd struct {
	dial func(context.Context) (Units, error)

	mu   sync.Mutex
	conn Units
}

func newSystemd(dial func(context.Context) (Units, error)) *systemd {
	if dial == nil {
		dial = dialSystemd
	}
	return &systemd{dial: dial}
}

func dialSystemd(ctx context.Context) (Units, error) {
	// The connection outlives the call that happens to make it.
	conn, err := dbus.NewWithContext(context.WithoutCancel(ctx))
	if err != nil {
		return nil, fmt.Errorf("connect to systemd: %w", err)
	}
	return conn, nil
}

// call runs op, once more on a new connection if the old one was closed.
func (s *systemd) call(ctx context.Context, op func(Units) error) error {
	conn, err := s.connection(ctx, nil)
	if err != nil {
		return err
	}
	err = op(conn)
	if !errors.Is(err, godbus.ErrClosed) {
		return err
	}
	if conn, err = s.connection(ctx, conn); err != nil {
		return err
	}
	return op(conn)
}

// connection returns the shared connection, or a new one if it is still the
// broken one.
func (s *systemd) connection(ctx context.Context, broken Units) (Units, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil && s.conn != broken {
		return s.conn, nil
	}
	if c, ok := s.conn.(interface{ Close() }); ok {
		c.Close()
	}
	s.conn = nil
	conn, err := s.dial(ctx)
	if err != nil {
		return nil, err
	}
	s.conn = conn
	return conn, nil
}

// startSlice makes sure that systemd has the cgroup as a slice with the limits.
// It writes them into the files itself, and a memory limit below what is in use
// would make a v2 kernel kill: then the present one stays, and put says so.
func (t *Tree) startSlice(ctx context.Context, cgroup string, r pod.Resources) error {
	if t.V2() && r.Memory != nil {
		dir := t.dir("memory", cgroup)
		err := belowUsage(filepath.Join(dir, "memory.current"), limitBytes(r.Memory))
		if errors.Is(err, unix.EBUSY) {
			r.Memory, err = memoryMax(filepath.Join(dir, "memory.max"))
		}
		if err != nil {
			return limitError(cgroup, err)
		}
	}
	return t.systemd.startSlice(ctx, cgroup, propertiesOf(t.V2(), r))
}

// startSlice makes sure that the slice of a cgroup is there with the
// properties.
func (s *systemd) startSlice(ctx context.Context, cgroup string, properties []dbus.Property) error {
	unit := path.Base(cgroup)
	all := append(sliceProperties(cgroup), properties...)
	err := s.job(ctx, "start", unit, func(u Units, done chan<- string) error {
		_, err := u.StartTransientUnitContext(ctx, unit, "replace", all, done)
		return err
	})
	if isDBusError(err, "org.freedesktop.systemd1.UnitExists") {
		return s.setProperties(ctx, cgroup, properties)
	}
	return err
}

// stopSlice stops the slice of a cgroup and every unit in it; a slice that
// systemd does not know is stopped.
func (s *systemd) stopSlice(ctx context.Context, cgroup string) error {
	unit := path.Base(cgroup)
	err := s.job(ctx, "stop", unit, func(u Units, done chan<- string) error {
		_, err := u.StopUnitContext(ctx, unit, "replace", done)
		return err
	})
	if isDBusError(err, "org.freedesktop.systemd1.NoSuchUnit") {
		return nil
	}
	return err
}

func (s *systemd) setProperties(ctx context.Context, cgroup string, properties []dbus.Property) error {
	unit := path.Base(cgroup)
	err := s.call(ctx, func(u Units) error {
		return u.SetUnitPropertiesContext(ctx, unit, true, properties...)
	})
	if err != nil {
		return fmt.Errorf("set properties of systemd unit %s: %w", unit, err)
	}
	return nil
}

// job runs a job of systemd to its end.
func (s *systemd) job(ctx context.Context, verb, unit string, op func(Units, chan<- string) error) error {
	done := make(chan string, 2) // two: op may run twice, and a late answer must not block the connection
	if err := s.call(ctx, func(u Units) error { return op(u, done) }); err != nil {
		return fmt.Errorf("%s systemd unit %s: %w", verb, unit, err)
	}
	select {
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("%s systemd unit %s: the job ended as %q", verb, unit, result)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s systemd unit %s: %w", verb, unit, ctx.Err())
	}
}

func isDBusError(err error, name string) bool {
	var e godbus.Error
	return errors.As(err, &e) && e.Name == name
}

// sliceProperties are those of every slice of ours.
func sliceProperties(cgroup string) []dbus.Property {
	parent := path.Base(path.Dir(cgroup))
	if !strings.HasSuffix(parent, ".slice") {
		parent = "-.slice"
	}
	return []dbus.Property{
		dbus.PropDescription("nodeagent cgroup " + path.Base(cgroup)),
		dbus.PropWants(parent),
		property("MemoryAccounting", true),
		property("CPUAccounting", true),
		property("IOAccounting", true),
		property("TasksAccounting", true),
		property("DefaultDependencies", false),
	}
}

// propertiesOf turns resources into the properties of a slice. All are always
// there, "infinity" for no limit, so that a change back to no limit arrives.
// Huge pages have no property and are written to the cgroup's files.
func propertiesOf(v2 bool, r pod.Resources) []dbus.Property {
	const infinity = uint64(math.MaxUint64)
	memory, tasks := infinity, infinity
	if r.Memory != nil {
		memory = uint64(*r.Memory)
	}
	if r.Pids > 0 {
		tasks = uint64(r.Pids)
	}
	period := r.CPUPeriod
	if period == 0 {
		period = pod.DefaultCPUPeriod
	}
	p := []dbus.Property{
		property("CPUQuotaPeriodUSec", period),
		property("CPUQuotaPerSecUSec", quotaPerSecond(r.CPUQuota, period)),
		property("TasksMax", tasks),
	}
	if v2 {
		return append(p, property("CPUWeight", r.CPUWeight), property("MemoryMax", memory))
	}
	return append(p, property("CPUShares", r.CPUShares), property("MemoryLimit", memory))
}

// quotaPerSecond is the CPU time a second in microseconds. systemd keeps whole
// percents, so it is rounded up to 10 ms: a container's own quota must fit.
func quotaPerSecond(quota *int64, period uint64) uint64 {
	if quota == nil || *quota <= 0 {
		return math.MaxUint64
	}
	q := uint64(*quota)
	if q > math.MaxUint64/1000000 {
		return math.MaxUint64
	}
	perSecond := q * 1000000 / period
	return (perSecond + 9999) / 10000 * 10000
}

// wholePercents is the quota that systemd makes of one, so that the files say
// what systemd would write into them the next time that it does.
func wholePercents(quota *int64, period uint64) *int64 {
	if period == 0 {
		period = pod.DefaultCPUPeriod
	}
	perSecond := quotaPerSecond(quota, period)
	if perSecond == math.MaxUint64 {
		return nil
	}
	const percent = 10000 // microseconds of a second
	return new(int64(perSecond / percent * period / 100))
}

func property(name string, value any) dbus.Property {
	return dbus.Property{Name: name, Value: godbus.MakeVariant(value)}
}
