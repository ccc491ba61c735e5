// Command podtool is what the example and test images run: one static binary
// with a verb for each thing that a test wants of a container. It imports as
// little as possible, so that starting it costs next to nothing.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type verb struct {
	run  func(args []string) error
	help string
}

func verbs() map[string]verb {
	return map[string]verb{
		"serve":    {serve, "ADDR [TEXT]: answer HTTP requests on ADDR until SIGTERM"},
		"sleep":    {sleep, "DURATION|forever: end with 0 on SIGTERM"},
		"exit":     {exit, "CODE [DURATION]: end with CODE, after DURATION"},
		"print":    {printLines, "N [INTERVAL]: print N numbered lines"},
		"flood":    {flood, "DURATION [BYTES]: print numbered 100-byte lines as fast as they are taken"},
		"deaf":     {deaf, "ignore SIGTERM and stay"},
		"once":     {once, "FILE CODE: make FILE and end with CODE; where it exists, stay"},
		"farewell": {farewell, "FILE: stay; tell in FILE.began, FILE.asked (to end) and FILE.ended when, in nanoseconds"},
		"fork":     {fork, "N VERB...: start N children, orphan them, and stay"},
		"alloc":    {alloc, "MIB: touch MIB mebibytes of memory and stay"},
		"huge":     {huge, "FILE MIB: map MIB mebibytes of FILE, a file of huge pages, and touch them"},
		"write":    {write, "FILE TEXT: write TEXT to FILE"},
		"remove":   {remove, "FILE...: remove files"},
		"cat":      {cat, "FILE...: print files"},
		"show":     {show, "print ids, capabilities, namespaces and mounts as JSON"},
		"get":      {get, "ADDR [PATH]: print the body of http://ADDR/PATH"},
		"wait":     {waitFor, "FILE: stay until FILE exists"},
		"seq":      {seq, "VERB... ';' VERB...: one verb after another"},
		"stderr":   {toStderr, "TEXT...: print TEXT to stderr"},
	}
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "podtool:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		usage()
		os.Exit(2)
	}
	v, ok := verbs()[args[0]]
	if !ok {
		usage()
		os.Exit(2)
	}
	return v.run(args[1:])
}

func usage() {
	for name, v := range verbs() {
		fmt.Fprintf(os.Stderr, "podtool %s %s\n", name, v.help)
	}
}

func term() <-chan os.Signal {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM, syscall.SIGINT)
	up()
	return c
}

// up says by the process's name, podtool-up, that SIGTERM is heeded, or ignored, from now
// on: as process 1 it is deaf before.
func up() { _ = os.WriteFile("/proc/self/comm", []byte("podtool-up"), 0) }

func huge(args []string) error {
	if len(args) != 2 {
		return errors.New("huge wants FILE MIB")
	}
	mib, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	f, err := os.OpenFile(args[0], os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	m, err := syscall.Mmap(int(f.Fd()), 0, mib<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map %d MiB of huge pages: %w", mib, err)
	}
	for i := 0; i < len(m); i += 1 << 20 {
		m[i] = 1 // SIGBUS where the cgroup lets it have no more
	}
	fmt.Println("touched", mib, "MiB")
	return nil
}

func once(args []string) error {
	if len(args) != 2 {
		return errors.New("once wants FILE CODE")
	}
	f, err := os.OpenFile(args[0], os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, os.ErrExist) {
		return sleep([]string{"forever"})
	}
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return exit(args[1:])
}

// farewell ends a moment after it was asked to, so that an order shows.
func farewell(args []string) error {
	if len(args) != 1 {
		return errors.New("farewell wants FILE")
	}
	tell := func(what string) error {
		return os.WriteFile(args[0]+"."+what, []byte(strconv.FormatInt(time.Now().UnixNano(), 10)), 0o644)
	}
	asked := term()
	if err := tell("began"); err != nil {
		return err
	}
	<-asked
	if err := tell("asked"); err != nil {
		return err
	}
	time.Sleep(100 * time.Millisecond)
	return tell("ended")
}

// serve speaks just enough HTTP/1.1 for probes, curl and browsers.
func serve(args []string) error {
	text := "hello from nodeagent\n"
	if len(args) > 1 {
		text = strings.Join(args[1:], " ") + "\n"
	}
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	fmt.Println("listening on", l.Addr())
	go func() { <-term(); fmt.Println("bye"); os.Exit(0) }()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go answer(c, text)
	}
}

func answer(c net.Conn, text string) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	r := bufio.NewReader(io.LimitReader(c, 64<<10))
	request, err := r.ReadString('\n')
	if err != nil {
		return
	}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if line == "\r\n" {
			break
		}
	}
	if f := strings.Fields(request); len(f) > 1 {
		fmt.Println(f[0], strconv.Quote(f[1]), c.RemoteAddr())
		if f[1] == "/hostname" {
			name, _ := os.Hostname()
			text = name + "\n"
		}
	}
	fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(text), text)
}

func get(args []string) error {
	path := "/"
	if len(args) > 1 {
		path = args[1]
	}
	c, err := net.DialTimeout("tcp", args[0], 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(c, "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", path, args[0])
	b, err := io.ReadAll(c)
	if _, body, ok := bytes.Cut(b, []byte("\r\n\r\n")); ok {
		_, err = os.Stdout.Write(body)
	}
	return err
}

func sleep(args []string) error {
	if len(args) == 0 || args[0] == "forever" {
		<-term()
		return nil
	}
	d, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	select {
	case <-term():
	case <-time.After(d):
	}
	return nil
}

func exit(args []string) error {
	code, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	if len(args) > 1 {
		if err := sleep(args[1:]); err != nil {
			return err
		}
	}
	os.Exit(code)
	return nil
}

func printLines(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	var gap time.Duration
	if len(args) > 1 {
		if gap, err = time.ParseDuration(args[1]); err != nil {
			return err
		}
	}
	for i := range n {
		fmt.Printf("line %d\n", i)
		if gap > 0 {
			time.Sleep(gap)
		}
	}
	return nil
}

// flood prints lines of 100 bytes: a number of 12 digits, filler, newline. The
// last line of all says "end", so that a reader knows that it has everything.
func flood(args []string) error {
	d, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	limit := int64(1) << 62
	if len(args) > 1 {
		if limit, err = strconv.ParseInt(args[1], 10, 64); err != nil {
			return err
		}
	}
	const lines, size = 320, 100 // 32 000 bytes a write: half a pipe
	buf := bytes.Repeat([]byte("."), lines*size)
	for i := range lines {
		buf[(i+1)*size-1] = '\n'
	}
	var n int64
	for end := time.Now().Add(d); time.Now().Before(end) && n*size < limit; {
		for i := range lines {
			number(buf[i*size:i*size+12], n)
			n++
		}
		if _, err := os.Stdout.Write(buf); err != nil {
			return err
		}
	}
	fmt.Printf("end %d\n", n)
	return nil
}

func number(dst []byte, n int64) {
	for i := len(dst) - 1; i >= 0; i-- {
		dst[i] = byte('0' + n%10)
		n /= 10
	}
}

func deaf([]string) error {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	up()
	fmt.Println("deaf")
	for {
		time.Sleep(time.Hour)
	}
}

func fork(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	for range n {
		cmd := exec.Command("/proc/self/exe", args[1:]...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			return err
		}
		fmt.Println("child", cmd.Process.Pid)
	}
	<-term()
	return nil
}

func alloc(args []string) error {
	mib, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	b := make([]byte, mib<<20)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	fmt.Println("allocated", len(b))
	<-term()
	b[0] = 2
	return nil
}

func write(args []string) error {
	return os.WriteFile(args[0], []byte(strings.Join(args[1:], " ")+"\n"), 0o644)
}

func remove(args []string) error {
	for _, p := range args {
		if err := os.Remove(p); err != nil {
			return err
		}
	}
	return nil
}

func cat(args []string) error {
	for _, p := range args {
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if _, err := os.Stdout.Write(b); err != nil {
			return err
		}
	}
	return nil
}

func toStderr(args []string) error {
	_, err := fmt.Fprintln(os.Stderr, strings.Join(args, " "))
	return err
}

func waitFor(args []string) error {
	stop := term()
	for {
		if _, err := os.Stat(args[0]); err == nil {
			return nil
		}
		select {
		case <-stop:
			return nil
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func seq(args []string) error {
	for len(args) > 0 {
		i := 0
		for i < len(args) && args[i] != ";" {
			i++
		}
		if err := run(args[:i]); err != nil {
			return err
		}
		args = args[min(i+1, len(args)):]
	}
	return nil
}

// Shown is what "show" prints.
type Shown struct {
	Pid        int               `json:"pid"`
	UID        int               `json:"uid"`
	GID        int               `json:"gid"`
	Groups     []int             `json:"groups"`
	Hostname   string            `json:"hostname"`
	Cwd        string            `json:"cwd"`
	Args       []string          `json:"args"`
	Env        []string          `json:"env"`
	Status     map[string]string `json:"status"` // Cap*, NoNewPrivs, Seccomp of /proc/self/status
	Namespaces map[string]string `json:"namespaces"`
	OOMScore   string            `json:"oomScoreAdj"`
	Cgroup     string            `json:"cgroup"`
	Mounts     []string          `json:"mounts"` // mountinfo lines
	Addrs      []string          `json:"addrs"`
}

func show([]string) error {
	s := Shown{Pid: os.Getpid(), UID: os.Getuid(), GID: os.Getgid(), Args: os.Args, Env: os.Environ(),
		Status: map[string]string{}, Namespaces: map[string]string{}}
	s.Groups, _ = os.Getgroups()
	s.Hostname, _ = os.Hostname()
	s.Cwd, _ = os.Getwd()
	for line := range strings.SplitSeq(file("/proc/self/status"), "\n") {
		k, v, _ := strings.Cut(line, ":")
		if strings.HasPrefix(k, "Cap") || k == "NoNewPrivs" || k == "Seccomp" {
			s.Status[k] = strings.TrimSpace(v)
		}
	}
	for _, ns := range []string{"net", "ipc", "uts", "pid", "mnt", "user", "cgroup"} {
		s.Namespaces[ns], _ = os.Readlink("/proc/self/ns/" + ns)
	}
	s.OOMScore = file("/proc/self/oom_score_adj")
	s.Cgroup = file("/proc/self/cgroup")
	s.Mounts = strings.Split(file("/proc/self/mountinfo"), "\n")
	if addrs, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addrs {
			s.Addrs = append(s.Addrs, a.String())
		}
	}
	return json.NewEncoder(os.Stdout).Encode(s)
}

func file(path string) string {
	b, _ := os.ReadFile(path)
	return strings.TrimSpace(string(b))
}
