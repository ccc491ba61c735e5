//go:build linux

// Command containerd-shim-nodeagent-v1 is what containerd runs to begin the shim
// of a pod, or to find it: a pod's first container needs a process that stays,
// each further one only its address. And at the end of each task containerd runs it
// to clean up after a shim that may have died: it looks whether there is anything to
// do. That is all that it does itself, since it runs twice in each container's life;
// whatever else is asked for (cleaning up, containers without a pod, versions) it
// leaves to nodeagent-shim, which is the shim and lies beside it.
//
// It never talks to containerd or to a shim, and imports next to nothing: begun
// as one program with the shim, it took five times as long.
//
// It is one goroutine, and ends within milliseconds.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"

	"nodeagent/internal/shimapi"
)

func main() {
	err := run(os.Args[1:], os.Stdin, os.Stdout)
	fmt.Fprintf(os.Stderr, "%s: %v\n", shimapi.Runtime, err)
	os.Exit(1)
}

// arguments are those of containerd's command line that are needed here.
type arguments struct {
	namespace, id, address string
	debug                  bool
}

// parse reads them and the verb; "" for a form of them that is not known here.
func parse(args []string) (a arguments, verb string) {
	fs := flag.NewFlagSet(shimapi.Runtime, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&a.namespace, "namespace", "", "")
	fs.StringVar(&a.id, "id", "", "")
	fs.StringVar(&a.address, "address", "", "")
	fs.BoolVar(&a.debug, "debug", false, "")
	fs.String("publish-binary", "", "")
	fs.String("bundle", "", "")
	if fs.Parse(args) != nil || fs.NArg() != 1 || a.namespace == "" || a.id == "" {
		return a, ""
	}
	return a, fs.Arg(0)
}

// run returns only with an error: it ends the process with what was asked for
// done, or becomes the shim's program.
func run(args []string, in io.Reader, out io.Writer) error {
	a, verb := parse(args)
	switch verb {
	case "start":
		return runStart(args, a, in, out)
	case "delete":
		if end, ok := ended(a); ok {
			return answer(out, deleted(end))
		}
	}
	return become(args, nil)
}

// answer ends the process with an answer for containerd.
func answer(out io.Writer, b []byte) error {
	if _, err := out.Write(b); err != nil {
		return fmt.Errorf("answer containerd: %w", err)
	}
	os.Exit(0)
	return nil
}

func runStart(args []string, a arguments, in io.Reader, out io.Writer) error {
	asked, err := io.ReadAll(io.LimitReader(in, maxParams+1))
	if err == nil && len(asked) > maxParams {
		err = fmt.Errorf("it is more than %d bytes", maxParams)
	}
	if err != nil {
		return fmt.Errorf("read what containerd asks for: %w", err)
	}
	group, err := readGroup("config.json")
	if err != nil {
		return fmt.Errorf("read the bundle's spec: %w", err)
	}
	p, err := parseParams(asked)
	if err != nil || group == "" || p.shimCgroup || os.Getenv("SCHED_CORE") != "" {
		return become(args, asked) // containerd's own way to start, and its words for what is wrong
	}
	address, err := start(a, p, group)
	if err != nil {
		return err
	}
	return answer(out, started(address))
}
