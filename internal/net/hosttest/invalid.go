package hosttest

import (
	stdnet "net"
	"testing"
	"time"

	"nodeagent/internal/net"
)

// Invalid: a packet that belongs to no connection gets to a pod where the backend
// keeps such, and does not where it does not.
func Invalid(t *testing.T, backend func(t testing.TB, keep bool) Programmer) {
	hosts := Wire(t)
	for _, keep := range []bool{true, false} {
		b := backend(t, keep)
		_, err := b.Sync(Ctx(t), net.Build(nil, nil, ThisNode))
		must(t, err)
		wait := Soon
		if !keep {
			wait = Never
		}
		if heard := hosts["here1"].hears(t, hosts["outside"], wait); heard != keep {
			t.Errorf("an answer to nothing gets to a pod: %v, want %v", heard, keep)
		}
	}
}

// answerToNothing is a TCP header: SYN and ACK, from port 80 to port 9999.
var answerToNothing = []byte{0, 80, 39, 15, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x12, 4, 0, 0, 0, 0, 0}

// hears tells whether it gets such a header from another host.
func (h *Host) hears(t testing.TB, from *Host, wait time.Duration) bool {
	t.Helper()
	var in stdnet.PacketConn
	var out stdnet.Conn
	var err error
	h.Do(func() { in, err = stdnet.ListenPacket("ip4:tcp", h.IP4.String()) })
	must(t, err)
	defer in.Close()
	from.Do(func() { out, err = stdnet.Dial("ip4:tcp", h.IP4.String()) })
	must(t, err)
	defer out.Close()
	_, err = out.Write(answerToNothing)
	must(t, err)
	must(t, in.SetReadDeadline(time.Now().Add(wait)))
	b := make([]byte, 100)
	for {
		n, _, err := in.ReadFrom(b)
		if err != nil {
			return false
		}
		if n == len(answerToNothing) && string(b[:4]) == string(answerToNothing[:4]) {
			return true
		}
	}
}
