package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"

	"nodeagent/internal/pod"
)

// Streams is the runtime for who wants to be in a container. Each call ends with
// ctx, or when what it carries has ended.
type Streams interface {
	// Exec runs a command in a container and returns its exit code.
	Exec(ctx context.Context, container string, s Session) (int32, error)
	// Attach carries what a container of the sandbox reads and writes.
	Attach(ctx context.Context, sandbox, container string, s Session) error
	// Dial connects to a port of the sandbox on its loopback.
	Dial(ctx context.Context, sandbox pod.Sandbox, port uint16) (net.Conn, error)
}

// Session is what somebody has of a process. Streams that are not wanted are nil.
type Session struct {
	Command        []string // of Exec
	TTY            bool     // all output is on Stdout
	StdinOnce      bool     // of Attach, as the container has it
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Resize         <-chan Size // with TTY; may be nil
}

// Size of a terminal in characters.
type Size struct{ Width, Height uint16 }

// How long streams may be silent where nothing is said, and how long a client has to
// open them (kubelet: 30 s): one that is gone by then holds a place for so long.
const (
	idleStreams   = 4 * time.Hour
	createStreams = 10 * time.Second
	maxCommand    = 64 << 10 // bytes of a command's words
)

// streamed is a handler of what needs the runtime's streams.
func (a *NodeAPI) streamed(handle func(http.ResponseWriter, *http.Request, []string)) func(http.ResponseWriter, *http.Request, []string) {
	if a.cfg.Streams == nil {
		return nil
	}
	return handle
}

// exec runs a command for who asks, over SPDY or WebSocket.
func (a *NodeAPI) exec(w http.ResponseWriter, r *http.Request, args []string) {
	p, id, ok := a.runs(w, args)
	if !ok {
		return
	}
	command, err := commandOf(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	opts, ok := options(w, r)
	if !ok {
		return
	}
	a.upgrade(w)
	e := execer{a, id}
	if websocket.IsWebSocketUpgrade(r) {
		a.talk(w, r, opts, "executing command in container", func(ctx context.Context, o wire) error {
			return e.ExecInContainer(ctx, "", "", "", command, o.in, o.out, o.errs, opts.TTY, o.resize, 0)
		})
		return
	}
	remotecommand.ServeExec(w, r, e, p.Name, string(p.UID), args[2], command, opts, orUsual(a.cfg.StreamIdle, idleStreams), createStreams, remotecommand.SupportedStreamingProtocols)
}

// attach joins a container that runs.
func (a *NodeAPI) attach(w http.ResponseWriter, r *http.Request, args []string) {
	p, id, ok := a.runs(w, args)
	if !ok {
		return
	}
	opts, ok := options(w, r)
	if !ok {
		return
	}
	sandbox, ok := a.sandbox(p)
	if !ok {
		http.Error(w, fmt.Sprintf("pod %q has no sandbox", p.Name), http.StatusNotFound)
		return
	}
	a.upgrade(w)
	t := attacher{a, sandbox.ID, id, once(p, args[2])}
	if websocket.IsWebSocketUpgrade(r) {
		a.talk(w, r, opts, "attaching to container", func(ctx context.Context, o wire) error {
			return t.AttachContainer(ctx, "", "", "", o.in, o.out, o.errs, opts.TTY, o.resize)
		})
		return
	}
	remotecommand.ServeAttach(w, r, t, p.Name, string(p.UID), args[2], opts, orUsual(a.cfg.StreamIdle, idleStreams), createStreams, remotecommand.SupportedStreamingProtocols)
}

// run runs a command and answers with what it says.
func (a *NodeAPI) run(w http.ResponseWriter, r *http.Request, args []string) {
	_, id, ok := a.runs(w, args)
	if !ok {
		return
	}
	command := r.FormValue("cmd")
	if command == "" || len(command) > maxCommand {
		http.Error(w, "cmd has to be a command of at most 64 KiB", http.StatusBadRequest)
		return
	}
	out := &together{w: &logWriter{w: w, control: http.NewResponseController(w), each: a.limits.written, flush: true}}
	_ = out.w.control.SetWriteDeadline(time.Time{})
	code, err := a.cfg.Streams.Exec(r.Context(), id, Session{Command: strings.Fields(command), Stdout: out, Stderr: out})
	switch {
	case err == nil && code == 0, out.w.begun:
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		http.Error(w, fmt.Sprintf("command terminated with exit code %d", code), http.StatusInternalServerError)
	}
}

// together writes two streams as one.
type together struct {
	mu sync.Mutex
	w  *logWriter
}

// Write implements io.Writer.
func (t *together) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.w.Write(p)
}

// portForward carries connections to the pod's ports.
func (a *NodeAPI) portForward(w http.ResponseWriter, r *http.Request, args []string) {
	p, code, err := a.podNamed(args[0], args[1], uidOf(args, 2))
	if err != nil {
		http.Error(w, err.Error(), code)
		return
	}
	sandbox, ok := a.sandbox(p)
	if !ok {
		http.Error(w, fmt.Sprintf("pod %q does not run", p.Name), http.StatusConflict)
		return
	}
	f := forwarder{a, sandbox}
	switch {
	case tunnels(r):
		a.upgrade(w)
		if w, r, ok = a.tunnel(w, r); !ok {
			return
		}
	case websocket.IsWebSocketUpgrade(r):
		ports, err := portsOf(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		a.upgrade(w)
		a.carryPorts(w, r, ports, f)
		return
	default:
		a.upgrade(w)
	}
	portforward.ServePortForward(w, r, f, p.Name, string(p.UID), &portforward.V4Options{}, orUsual(a.cfg.StreamIdle, idleStreams), createStreams, portforward.SupportedProtocols)
}

// upgrade takes the deadlines of a request off what becomes a stream.
func (a *NodeAPI) upgrade(w http.ResponseWriter) {
	control := http.NewResponseController(w)
	_, _ = control.SetWriteDeadline(time.Time{}), control.SetReadDeadline(time.Time{})
}

// commandOf are the words of the command.
func commandOf(r *http.Request) ([]string, error) {
	words, size := r.URL.Query()["command"], 0
	for _, one := range words {
		size += len(one)
	}
	if len(words) == 0 || size > maxCommand {
		return nil, errors.New("command has to be said, in at most 64 KiB")
	}
	return words, nil
}

func options(w http.ResponseWriter, r *http.Request) (*remotecommand.Options, bool) {
	opts, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return nil, false
	}
	return opts, true
}

func uidOf(args []string, at int) string {
	if len(args) > at {
		return args[at]
	}
	return ""
}

// runs finds the container that runs, as exec and attach name it: a namespace,
// a pod, perhaps its UID, and a container.
func (a *NodeAPI) runs(w http.ResponseWriter, args []string) (*corev1.Pod, string, bool) {
	uid := ""
	if len(args) == 4 {
		uid, args[2] = args[2], args[3]
	}
	p, code, err := a.podNamed(args[0], args[1], uid)
	if err == nil && !hasContainer(&p.Spec, args[2]) {
		code, err = http.StatusNotFound, fmt.Errorf("container %q not found in pod %q", args[2], p.Name)
	}
	if err != nil {
		http.Error(w, err.Error(), code)
		return nil, "", false
	}
	state := a.cfg.Runtime.Observe(p.UID)
	for _, c := range state.Containers {
		if c.Name == args[2] && c.State == pod.ContainerRunning {
			return p, c.ID, true
		}
	}
	http.Error(w, fmt.Sprintf("container %q in pod %q does not run", args[2], p.Name), http.StatusConflict)
	return nil, "", false
}

// sandbox is the one that the pod's containers are in.
func (a *NodeAPI) sandbox(p *corev1.Pod) (found pod.Sandbox, ok bool) {
	for _, s := range a.cfg.Runtime.Observe(p.UID).Sandboxes {
		if !s.Stopped && (!ok || s.Attempt > found.Attempt) {
			found, ok = s, true
		}
	}
	return found, ok
}

// execer fits one container to the streams' library.
type execer struct {
	api *NodeAPI
	id  string
}

// ExecInContainer implements remotecommand.Executor.
func (e execer) ExecInContainer(ctx context.Context, _, _, _ string, command []string, in io.Reader, out, errs io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	ctx, s := session(ctx, in, out, errs, tty, resize)
	defer s.end()
	s.Command = command
	code, err := e.api.cfg.Streams.Exec(ctx, e.id, s.Session)
	if err != nil {
		return err
	}
	if code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("exit code %d", code), Code: int(code)}
	}
	return nil
}

type attacher struct {
	api         *NodeAPI
	sandbox, id string
	once        bool
}

// once tells whether the container's input ends with the first that was attached.
func once(p *corev1.Pod, container string) bool {
	c := pod.ContainerOf(p, container)
	return c != nil && c.StdinOnce
}

// AttachContainer implements remotecommand.Attacher.
func (t attacher) AttachContainer(ctx context.Context, _, _, _ string, in io.Reader, out, errs io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	ctx, s := session(ctx, in, out, errs, tty, resize)
	defer s.end()
	s.StdinOnce = t.once
	return t.api.cfg.Streams.Attach(ctx, t.sandbox, t.id, s.Session)
}

// joined is a Session of which a client has the other end.
type joined struct {
	Session
	end func()
}

// session ends with the first write that the client does not take: a command whose
// output nobody has any more is not kept.
func session(ctx context.Context, in io.Reader, out, errs io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) (context.Context, joined) {
	ctx, cancel := context.WithCancel(ctx)
	s := joined{Session: Session{TTY: tty, Stdin: in}, end: cancel}
	if out != nil {
		s.Stdout = given{out, cancel}
	}
	if errs != nil && !tty {
		s.Stderr = given{errs, cancel}
	}
	if resize == nil {
		return ctx, s
	}
	sizes := make(chan Size)
	s.Resize = sizes
	go func() { // ends with the session
		for {
			select {
			case <-ctx.Done():
				return
			case size, ok := <-resize:
				if !ok {
					return
				}
				select {
				case sizes <- Size{Width: size.Width, Height: size.Height}:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return ctx, s
}

// given is a stream to a client that may be gone.
type given struct {
	w    io.Writer
	lost func()
}

// Write implements io.Writer.
func (g given) Write(p []byte) (int, error) {
	n, err := g.w.Write(p)
	if err != nil {
		g.lost()
	}
	return n, err
}

type forwarder struct {
	api     *NodeAPI
	sandbox pod.Sandbox
}

// PortForward implements portforward.PortForwarder.
func (f forwarder) PortForward(ctx context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	if port < 1 || port > 65535 {
		return errors.New("port " + strconv.Itoa(int(port)) + " is none")
	}
	dialing, cancel := context.WithTimeout(ctx, dialLimit)
	conn, err := f.api.cfg.Streams.Dial(dialing, f.sandbox, uint16(port))
	cancel()
	if err != nil {
		return fmt.Errorf("connect to port %d of the pod: %w", port, err)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer conn.Close()
	return carry(conn, stream)
}

// dialLimit bounds a connection's beginning.
const dialLimit = 10 * time.Second

// carry copies both ways until the pod has said everything, or the client is gone.
func carry(conn net.Conn, stream io.ReadWriteCloser) error {
	sent := make(chan struct{})
	go func() { // ends when either end does
		defer close(sent)
		_, _ = io.Copy(conn, stream)
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite() // the pod may still have something to say
		}
	}()
	_, err := io.Copy(stream, conn)
	_, _ = conn.Close(), stream.Close()
	<-sent
	return err
}
