// Command bench is "make bench": it measures the daemon on a private node and
// prints one table, each row beside what containerd and runc need for the same
// work without us, measured by test/floor in the same run on the same containerd.
//
// How the rows are measured:
//   - a container runs: the time stamp that the shim puts on containerd's
//     /tasks/start event, after runc start has returned; the clock starts before
//     the manifest's rename.
//   - everything is gone: containerd's /containers/delete event of every record
//     of the pod, and neither cgroup, nor network namespace, nor pod directory,
//     nor log directory is there any more (looked at each millisecond).
//   - beside the floor: it is measured before, between and after two rounds of
//     ours, and a row is the mean of the rounds over the mean of what stood around
//     them. One round beside one floor differs by a fifth from the next.
//   - memory: /proc/PID/smaps_rollup; CPU: /proc/PID/task/*/schedstat.
//
// It exits 1 when a row is over its limit. A busy machine spoils both sides; the
// ratio says more than the times.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	containerd "github.com/containerd/containerd/v2/client"

	"nodeagent/test/bed"
	"nodeagent/test/image"
	"nodeagent/test/measure"
)

func main() {
	var o options
	flag.StringVar(&o.floor, "floor", "bin/test/floor", "the floor's `program`")
	flag.IntVar(&o.single, "n", 20, "pods one after another")
	flag.IntVar(&o.many, "many", 100, "pods at once")
	flag.DurationVar(&o.rest, "rest", 30*time.Second, "how long to look at the resting node")
	flag.DurationVar(&o.flood, "flood", 10*time.Second, "how long to print")
	flag.StringVar(&o.data, "data", "", "keep the node's files in `dir` (default below /tmp)")
	flag.Parse()
	o.single, o.many = max(o.single, 1), max(o.many, 1)
	measure.Main("bench", func(ctx context.Context) (bool, error) { return run(ctx, o) })
}

type options struct {
	floor, data  string
	single, many int
	rest, flood  time.Duration
}

// bench is one run.
type bench struct {
	options
	bed   *bed.Bed
	agent *bed.AgentProcess
	seen  *measure.Recorder
	ctd   *containerd.Client
	base  []floorResult       // before, between and after ours
	equal floorResult         // after ours, under the seccomp profile that ours has
	ours  [rowCount][]float64 // of the rows beside the floor, by round
	cpu   [rowCount][]float64 // seconds of CPU time of all processes of the node
	rows  [rowCount]measure.Row
}

// The table's rows, in its order.
const (
	createOne = iota
	createMany
	removeOne
	removeMany
	daemonMemory
	shimMemory
	restCPU
	restartMany
	flood
	rowCount
)

// floorResult is what test/floor prints.
type floorResult struct {
	CreateMedian float64 `json:"createMedian"`
	DeleteMedian float64 `json:"deleteMedian"`
	CreateMany   float64 `json:"createMany"`
	DeleteMany   float64 `json:"deleteMany"`
	ShimAnon     int64   `json:"shimAnon"`
	CreateCPU    float64 `json:"createCPU"`
	DeleteCPU    float64 `json:"deleteCPU"`
}

// argv is what every measured container runs.
func argv() []string { return []string{"/podtool", "sleep", "forever"} }

func run(ctx context.Context, o options) (over bool, err error) {
	// As on a node: what lasts until a reboot, containerd's and ours, is on a
	// tmpfs. It is removed last, when nobody writes there any more.
	memory, err := measure.Tmpfs()
	if err != nil {
		return false, err
	}
	run, err := os.MkdirTemp(memory, "nodeagent-bench-")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(run)) }()
	runDir, state := filepath.Join(run, "agent"), filepath.Join(run, "containerd")
	if err := errors.Join(os.Mkdir(runDir, 0o700), os.Mkdir(state, 0o711)); err != nil {
		return false, err
	}
	b, err := bed.Start(ctx, bed.Options{Data: o.data, State: state, Private: true, Talk: os.Stderr})
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if err := b.Import(ctx); err != nil {
		return false, err
	}
	be := &bench{options: o, bed: b}
	// The floor comes before us and after us: what was deleted in the last minute
	// makes each new file on ext4 dearer, and that must not be ours alone.
	if err := be.measureFloor(ctx); err != nil {
		return false, err
	}
	if be.ctd, err = b.Dial(); err != nil {
		return false, err
	}
	defer be.ctd.Close()
	be.seen = measure.Record(ctx, be.ctd, bed.Namespace, measure.TaskStarted, measure.RecordGone)
	be.agent, err = b.NewAgent(ctx, bed.AgentOptions{
		RunDir: runDir,
		// Room for every line of the flood: nothing is rotated away.
		Kubelet: "containerLogMaxSize: 64Gi\ncontainerLogMaxFiles: 5",
	})
	if err != nil {
		return false, err
	}
	if err := be.agent.Start(ctx); err != nil {
		return false, err
	}
	for _, step := range []func(context.Context) error{be.oneByOne, be.together, be.measureFloor, be.oneByOne, be.burst, be.measureFloor, be.measureEqual, be.logFlood} {
		if err := step(ctx); err != nil {
			return false, fmt.Errorf("%w\n%s", err, be.agent.LogTail(40))
		}
	}
	be.compare()
	return be.table(), nil
}

func (b *bench) measureFloor(ctx context.Context) error {
	b.say("the floor: containerd and runc alone")
	f, err := b.runFloor(ctx, "-n", strconv.Itoa(b.single))
	if err != nil {
		return err
	}
	b.base = append(b.base, f)
	// What the floor takes on the kind of machine for which the limits were set.
	const create, remove, slow = 0.055, 0.031, 1.3
	if f.CreateMedian > slow*create || f.DeleteMedian > slow*remove {
		b.say(fmt.Sprintf("note: the floor took %s and %s; on an idle machine of two cores it takes 55 and 31 ms", measure.MS(f.CreateMedian), measure.MS(f.DeleteMedian)))
	}
	return nil
}

// measureEqual measures the floor with what every container of ours has and the
// floor has not: a seccomp profile, which runc compiles at each start.
func (b *bench) measureEqual(ctx context.Context) (err error) {
	b.say("the floor under the default seccomp profile")
	b.equal, err = b.runFloor(ctx, "-n", "0", "-seccomp")
	return err
}

func (b *bench) runFloor(ctx context.Context, more ...string) (f floorResult, err error) {
	args := []string{b.floor, "-address", b.bed.Address(), "-image", image.Example, "-cgroup", b.bed.CgroupRoot() + "/kubepods/besteffort",
		"-many", strconv.Itoa(b.many), "-parallel", "4", "-cpu", b.cpuStat()}
	out, err := b.bed.Run(ctx, slices.Concat(args, more, argv())...)
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal([]byte(out), &f); err != nil {
		return f, fmt.Errorf("read the floor's times: %w", err)
	}
	return f, nil
}

// compare makes the rows that stand beside the floor, once it was measured on
// both sides of ours.
func (b *bench) compare() {
	for _, r := range []struct {
		at     int
		limit  float64
		floors func(floorResult) float64
		cpu    func(floorResult) float64
	}{
		{createOne, 1.4, func(f floorResult) float64 { return f.CreateMedian }, nil},
		{createMany, 1.2, func(f floorResult) float64 { return f.CreateMany }, func(f floorResult) float64 { return f.CreateCPU }},
		{removeOne, 1.5, func(f floorResult) float64 { return f.DeleteMedian }, nil},
		{removeMany, 1.3, func(f floorResult) float64 { return f.DeleteMany }, func(f floorResult) float64 { return f.DeleteCPU }},
		{shimMemory, 1.1, func(f floorResult) float64 { return float64(f.ShimAnon) }, nil},
	} {
		show := measure.MS
		if r.at == shimMemory {
			show = measure.MB
		}
		var floors []float64
		for _, f := range b.base {
			floors = append(floors, r.floors(f))
		}
		floor, value, row := measure.Mean(around(floors, len(b.ours[r.at]))), measure.Mean(b.ours[r.at]), &b.rows[r.at]
		row.Ours, row.Peer, row.Value, row.Limit, row.Unit = show(value), show(floor), value/floor, r.limit, "×"
		row.Note += fmt.Sprintf("; rounds %s, floor %s", measure.List(b.ours[r.at], show), measure.List(floors, show))
		if len(b.cpu[r.at]) > 0 {
			var theirs []float64
			for _, f := range b.base {
				theirs = append(theirs, r.cpu(f)/float64(b.many))
			}
			row.Note += fmt.Sprintf("; CPU a pod %s, floor %s", measure.MS(measure.Mean(b.cpu[r.at])/float64(b.many)), measure.MS(measure.Mean(theirs)))
		}
		if r.at == createMany {
			row.Note += fmt.Sprintf("; %.2f × of a floor with the same seccomp profile, %s", value/b.equal.CreateMany, show(b.equal.CreateMany))
		}
	}
}

// cpuStat counts the CPU time of everything on the bed: containerd, shims, runc,
// the daemon or the floor, and the containers.
func (b *bench) cpuStat() string {
	for _, h := range []string{"unified", "."} {
		if f := filepath.Join("/sys/fs/cgroup", h, b.bed.CgroupRoot(), "cpu.stat"); exists(f) {
			return f
		}
	}
	return ""
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

// cpuTotal is that time in seconds.
func (b *bench) cpuTotal() float64 {
	text, _ := os.ReadFile(b.cpuStat())
	var usec float64
	_, _ = fmt.Sscanf(string(text), "usage_usec %f", &usec)
	return usec / 1e6
}

func (b *bench) say(s string) { fmt.Fprintln(os.Stderr, "bench:", s) }

// measured adds a round to a row that compare will set against the floor's.
func (b *bench) measured(at int, work string, value float64, note string) {
	b.ours[at] = append(b.ours[at], value)
	b.rows[at] = measure.Row{Work: work, Note: note}
}

// around is the floor of each round: the mean of the one before and after it.
func around(floors []float64, rounds int) []float64 {
	var out []float64
	for i := range rounds {
		out = append(out, (floors[i]+floors[i+1])/2)
	}
	return out
}

// absolute adds a row that is held against a number.
func (b *bench) absolute(at int, work, ours string, value, limit float64, unit, note string) {
	b.rows[at] = measure.Row{Work: work, Ours: ours, Value: value, Limit: limit, Unit: unit, Note: note}
}

func (b *bench) table() (over bool) {
	fmt.Println()
	return measure.Table(os.Stdout, "FLOOR", b.rows[:])
}
