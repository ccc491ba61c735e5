package guest

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"
)

// qmp is a client of QEMU's control socket.
type qmp struct {
	conn net.Conn
	mu   sync.Mutex // one command at a time

	replies chan qmpReply
	events  chan qmpReply
	done    chan struct{}
}

type qmpReply struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class, Desc string
	} `json:"error"`
	Event string `json:"event"`
	Data  struct {
		Status string `json:"status"`
	} `json:"data"`
	QMP json.RawMessage `json:"QMP"`
}

func newQMP(conn net.Conn) *qmp {
	q := &qmp{conn: conn, replies: make(chan qmpReply, 1), events: make(chan qmpReply, 256), done: make(chan struct{})}
	go q.read()
	return q
}

// read ends when QEMU closes the socket.
func (q *qmp) read() {
	defer close(q.done)
	d := json.NewDecoder(q.conn)
	for {
		var r qmpReply
		if err := d.Decode(&r); err != nil {
			return
		}
		switch {
		case r.QMP != nil:
		case r.Event != "":
			select {
			case q.events <- r:
			default: // nobody waits for events now
			}
		default:
			q.replies <- r
		}
	}
}

// do runs a command and waits for its answer.
func (q *qmp) do(ctx context.Context, name string, args any) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	b, err := json.Marshal(map[string]any{"execute": name, "arguments": args})
	if err != nil {
		return err
	}
	if args == nil {
		b = fmt.Appendf(nil, `{"execute":%q}`, name)
	}
	if _, err := q.conn.Write(b); err != nil {
		return fmt.Errorf("tell qemu to %s: %w", name, err)
	}
	select {
	case r := <-q.replies:
		if r.Error != nil {
			return fmt.Errorf("qemu refused to %s: %s", name, r.Error.Desc)
		}
		return nil
	case <-q.done:
		return fmt.Errorf("tell qemu to %s: it has ended", name)
	case <-ctx.Done():
		return fmt.Errorf("tell qemu to %s: %w", name, ctx.Err())
	}
}

// migrate runs the command and waits until a migration, out or in, is complete.
func (q *qmp) migrate(ctx context.Context, command, uri string) error {
	caps := map[string]any{"capabilities": []any{map[string]any{"capability": "events", "state": true}}}
	if err := q.do(ctx, "migrate-set-capabilities", caps); err != nil {
		return err
	}
	if err := q.do(ctx, "migrate-set-parameters", map[string]any{"max-bandwidth": 1 << 40}); err != nil {
		return err
	}
	if err := q.do(ctx, command, map[string]any{"uri": uri}); err != nil {
		return err
	}
	for {
		select {
		case e := <-q.events:
			switch {
			case e.Event != "MIGRATION":
			case e.Data.Status == "completed":
				return nil
			case e.Data.Status == "failed":
				return fmt.Errorf("%s: qemu says that it failed", command)
			}
		case <-q.done:
			return fmt.Errorf("%s: qemu has ended", command)
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", command, ctx.Err())
		}
	}
}
