package server

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/gorilla/websocket"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientforward "k8s.io/client-go/tools/portforward"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/klog/v2"
	utilexec "k8s.io/utils/exec"
)

// talkVersions are those of exec and attach over a WebSocket. The fourth brought exit
// codes, the fifth the end of the input.
var talkVersions = []string{"v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io"}

// carryVersions are those of port-forward with two channels a port. Who forwards many
// connections asks for a tunnel.
var carryVersions = []string{"v4.channel.k8s.io", "v4.base64.channel.k8s.io"}

// maxPorts bounds the ports that one WebSocket is for, beside what a channel's number can be.
const maxPorts = 100

// wire is what a client has of a process over any transport.
type wire struct {
	in        io.Reader
	out, errs io.WriteCloser
	resize    <-chan remotecommand.TerminalSize
}

// talk joins the client of a WebSocket to what run runs, and tells how that ended.
func (a *NodeAPI) talk(w http.ResponseWriter, r *http.Request, opts *remotecommand.Options, doing string, run func(context.Context, wire) error) {
	c, ok := a.openChannels(w, r, talkVersions, opts.Stdin, false, false, false, opts.TTY)
	if !ok {
		return
	}
	defer c.end()
	var over wire
	first := c.all[remotecommand.StreamErr]
	if opts.Stderr {
		first = c.all[remotecommand.StreamStdErr]
		over.errs = first
	}
	if opts.Stdout {
		first = c.all[remotecommand.StreamStdOut]
		over.out = first
	}
	if opts.Stdin {
		over.in = c.all[remotecommand.StreamStdIn]
	}
	// An empty message says that the streams are there.
	if _, err := first.Write(nil); err != nil {
		return
	}
	ctx, cancel := c.while(r.Context())
	defer cancel()
	if opts.TTY {
		over.resize = sizesOf(ctx, c.all[remotecommand.StreamResize])
	}
	c.tell(outcome(run(ctx, over), doing))
}

// tell writes how it ended, as the version has it. The client may be gone.
func (c *channels) tell(s metav1.Status) {
	text := []byte(s.Message)
	if v := c.conn.Subprotocol(); strings.HasPrefix(v, "v4.") || strings.HasPrefix(v, "v5.") {
		text, _ = json.Marshal(s) // of words and numbers: it cannot fail
	} else if s.Status == metav1.StatusSuccess {
		return
	}
	_, _ = c.all[remotecommand.StreamErr].Write(text)
}

// outcome says how a command ended, in the words of cri-streaming's handlers.
func outcome(err error, doing string) metav1.Status {
	var exit utilexec.ExitError
	switch {
	case err == nil:
		return metav1.Status{Status: metav1.StatusSuccess}
	case errors.As(err, &exit) && exit.Exited():
		return metav1.Status{
			Status: metav1.StatusFailure, Reason: remotecommand.NonZeroExitCodeReason,
			Message: fmt.Sprintf("command terminated with non-zero exit code: %v", exit),
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{
				Type: remotecommand.ExitCodeCauseType, Message: strconv.Itoa(exit.ExitStatus())}}},
		}
	default:
		return apierrors.NewInternalError(fmt.Errorf("error %s: %w", doing, err)).Status()
	}
}

// maxSize bounds what a client says of a terminal's size.
const maxSize = 4 << 10

// sizesOf reads the sizes of a terminal until what is read, or ctx, ends.
func sizesOf(ctx context.Context, from io.Reader) <-chan remotecommand.TerminalSize {
	sizes := make(chan remotecommand.TerminalSize)
	go func() {
		defer close(sizes)
		part := &io.LimitedReader{R: from}
		for decoder := json.NewDecoder(part); ; {
			var size remotecommand.TerminalSize
			part.N = maxSize
			if decoder.Decode(&size) != nil {
				return
			}
			select {
			case sizes <- size:
			case <-ctx.Done():
				return
			}
		}
	}()
	return sizes
}

// portsOf are the ports that a WebSocket with channels is for.
func portsOf(r *http.Request) ([]int32, error) {
	var ports []int32
	for _, one := range r.URL.Query()[portforward.PortHeader] {
		for text := range strings.SplitSeq(one, ",") {
			port, err := strconv.ParseUint(text, 10, 16)
			if err != nil || port == 0 {
				return nil, fmt.Errorf("port: %q is none", text)
			}
			ports = append(ports, int32(port))
		}
	}
	if len(ports) == 0 || len(ports) > maxPorts {
		return nil, fmt.Errorf("port: from 1 to %d of them have to be said", maxPorts)
	}
	return ports, nil
}

// carryPorts carries one connection a port, each over a channel of its own, beside one
// for what goes wrong.
func (a *NodeAPI) carryPorts(w http.ResponseWriter, r *http.Request, ports []int32, f forwarder) {
	readable := make([]bool, 2*len(ports))
	for i := range ports {
		readable[2*i] = true
	}
	c, ok := a.openChannels(w, r, carryVersions, readable...)
	if !ok {
		return
	}
	defer c.end()
	ctx, cancel := c.while(r.Context())
	defer cancel()
	var all sync.WaitGroup
	for i, port := range ports {
		data, failed := c.all[2*i], c.all[2*i+1]
		which := binary.LittleEndian.AppendUint16(nil, uint16(port))
		for _, one := range []channel{data, failed} {
			_, _ = one.Write(which) // what follows fails, too
		}
		all.Go(func() {
			if err := f.PortForward(ctx, "", "", port, data); err != nil {
				fmt.Fprintf(failed, "error forwarding port %d: %v", port, err)
			}
		})
	}
	all.Wait()
}

// tunnels tells whether a client wants to speak SPDY within a WebSocket.
func tunnels(r *http.Request) bool {
	return slices.Contains(websocket.Subprotocols(r), portforward.WebsocketsSPDYTunnelingPortForwardV1)
}

// tunnel makes of a WebSocket the connection on which a client speaks SPDY, and of the
// request one that asks for SPDY. It has answered when there is none.
func (a *NodeAPI) tunnel(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, *http.Request, bool) {
	socket, err := a.webSocket(w, r, []string{portforward.WebsocketsSPDYTunnelingPortForwardV1})
	if err != nil {
		return nil, nil, false
	}
	within := r.Clone(r.Context())
	within.Header = http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"SPDY/3.1"}, "X-Stream-Protocol-Version": {portforward.ProtocolV1Name},
	}
	// Without a logger: it would be told what is carried.
	conn := clientforward.NewTunnelingConnectionWithLogger(klog.Logger{}, socket)
	return tunnelled{header: http.Header{}, conn: conn}, within, true
}

// tunnelled is the answer to a request within a tunnel, of which the client has seen the
// head already.
type tunnelled struct {
	header http.Header
	conn   net.Conn
}

// Header implements http.ResponseWriter.
func (t tunnelled) Header() http.Header { return t.header }

// WriteHeader implements http.ResponseWriter.
func (t tunnelled) WriteHeader(int) {}

// Write implements http.ResponseWriter: words are no SPDY.
func (t tunnelled) Write([]byte) (int, error) { return 0, http.ErrHijacked }

// Hijack implements http.Hijacker.
func (t tunnelled) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return t.conn, bufio.NewReadWriter(bufio.NewReader(t.conn), bufio.NewWriter(t.conn)), nil
}
