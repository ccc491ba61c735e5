// Command run is "make test-machine": it installs and builds what guests need,
// runs the tests of test/machine and with them the packages' tests inside
// guests, prints a line for each, and at the end judges that no test is left out:
// what skips on this host for a typed reason must have passed in a guest.
// It exits 1 when a test failed or ran nowhere. Who is not root gets one skip.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"nodeagent/internal/test/need"
	"nodeagent/test/machine/guest"
)

func main() {
	arch := flag.String("arch", runtime.GOARCH, "the guests' `architecture`: amd64 or arm64")
	only := flag.String("run", "", "run the tests of test/machine that match `regexp`; nothing is judged left out then")
	full := flag.Bool("full", os.Getenv("FULL") == "1", "run what takes too long for every day, too")
	limit := flag.Duration("timeout", time.Hour, "end a test of test/machine after this `time`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r := &run{arch: *arch, only: *only, full: *full, limit: max(*limit, cutsTime(os.Getenv("POWER_CUTS")))}
	word, code := verdict(r.run(ctx, need.Lacks(need.Root)))
	fmt.Println(word)
	os.Exit(code)
}

// errSkipped says that nothing was run, and so nothing is proved.
var errSkipped = errors.New("no guest was booted, and nothing is proved that needs one")

// verdict is the last line, and the exit code.
func verdict(err error) (string, int) {
	switch {
	case errors.Is(err, errSkipped):
		return "SKIP " + err.Error(), 0 // as make test-host, which skips most for who is not root
	case err != nil:
		return "FAIL " + err.Error(), 1
	}
	return "PASS", 0
}

// cutsTime is how long a test may take that cuts the power so often; a number that
// is none is the test's to refuse.
func cutsTime(cuts string) time.Duration {
	n, _ := strconv.ParseUint(cuts, 10, 16)
	return guest.CutsTime(n) + 10*time.Minute // to bring the guest up, and to tell what it ends with
}

type run struct {
	arch, only string
	full       bool
	limit      time.Duration
	ledger     ledger
}

// run runs everything, unless notRoot says why that cannot be.
func (r *run) run(ctx context.Context, notRoot string) error {
	if notRoot != "" {
		r.ledger.skipAll(fmt.Sprintf("need:%s: %s", need.Root, notRoot))
		return errSkipped
	}
	begin := time.Now()
	if err := command(ctx, nil, "hack/machine-deps", r.arch).Run(); err != nil {
		return fmt.Errorf("install what guests need: %w", err)
	}
	if _, err := guest.Disk(ctx, r.arch); err != nil {
		return err
	}
	fmt.Printf("== guest disk: ready in %.0f s\n", time.Since(begin).Seconds())
	err := r.guests(ctx)
	if r.only == "" && ctx.Err() == nil {
		err = errors.Join(err, r.left(ctx))
	}
	if err == nil && r.ledger.none() {
		err = errors.New("no test ran: does the regexp match any?")
	}
	r.ledger.summary()
	fmt.Printf("in %.0f s\n", time.Since(begin).Seconds())
	return err
}

// guests runs test/machine. Results of tests inside guests come through a FIFO
// as they end; go test tells of its own only when the outermost is done.
func (r *run) guests(ctx context.Context) (err error) {
	dir, remove, err := guest.NewRun(ctx, r.arch)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	fifo := filepath.Join(dir, "results")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		return err
	}
	f, err := os.OpenFile(fifo, os.O_RDWR, 0) // both ends: no writer must wait for us
	if err != nil {
		return err
	}
	read := make(chan struct{})
	go func() { // ends at "end"
		s := bufio.NewScanner(f)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			var res guest.Result
			switch s.Text() {
			case "sync":
				read <- struct{}{}
			case "end":
				close(read)
				return
			}
			if json.Unmarshal(s.Bytes(), &res) == nil {
				r.ledger.inGuest(res)
			}
		}
	}()
	env := []string{"NODEAGENT_MACHINE=" + r.arch, "NODEAGENT_MACHINE_RESULTS=" + fifo}
	if r.full {
		env = append(env, "NODEAGENT_MACHINE_FULL=1")
	}
	var mu sync.Mutex // one event at a time asks the FIFO's reader
	handle := func(e event) {
		// What was said through the FIFO before this event is known first.
		if e.Action == "pass" || e.Action == "fail" || e.Action == "skip" {
			mu.Lock()
			if _, err := f.WriteString("sync\n"); err == nil {
				<-read
			}
			mu.Unlock()
		}
		r.ledger.ofMachine(e)
	}
	err = r.lanes(ctx, dir, env, handle)
	_, werr := f.WriteString("end\n")
	<-read
	return errors.Join(err, werr, f.Close())
}

// goTest runs go test -json and hands on each event.
func goTest(ctx context.Context, env []string, handle func(event), args ...string) error {
	cmd := command(ctx, env, "go", append([]string{"test", "-json"}, args...)...)
	cmd.Stdout = nil
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	events(out, handle)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("go test %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// events hands on each event of a stream, and prints what is none.
func events(from io.Reader, handle func(event)) {
	s := bufio.NewScanner(from)
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		var e event
		if json.Unmarshal(s.Bytes(), &e) == nil {
			handle(e)
		} else {
			fmt.Println(s.Text())
		}
	}
}

// command is one that gets Ctrl-C, and time to clean up after it.
func command(ctx context.Context, env []string, argv0 string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv0, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 30 * time.Second
	return cmd
}
