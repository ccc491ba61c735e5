package server

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"time"
)

// upgrading answers a request that wants its connection for something else. Whoever
// refuses that gives the connection up: a client or a proxy that takes it for a
// stream must not be able to send another request on it (CVE-2018-1002105).
type upgrading struct {
	http.ResponseWriter
	begun bool
	conn  net.Conn // when it was taken
}

// WriteHeader implements http.ResponseWriter.
func (u *upgrading) WriteHeader(code int) {
	if u.begun = true; code != http.StatusSwitchingProtocols {
		u.Header().Set("Connection", "close")
	}
	u.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (u *upgrading) Write(p []byte) (int, error) {
	if !u.begun {
		u.WriteHeader(http.StatusOK)
	}
	return u.ResponseWriter.Write(p)
}

// Hijack implements http.Hijacker, by which the streams' library takes the connection.
func (u *upgrading) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	h, ok := u.ResponseWriter.(http.Hijacker)
	if !ok {
		return nil, nil, errors.New("this connection cannot be a stream")
	}
	c, buffered, err := h.Hijack()
	u.conn = c
	return c, buffered, err
}

// over closes a connection whose streams have ended. The library leaves one open on
// which its client never opened any, for as long as a stream may be silent. It is given
// a moment, in which the library says its last word.
func (u *upgrading) over() {
	if u.conn != nil {
		time.AfterFunc(lastWord, func() { _ = u.conn.Close() })
	}
}

// lastWord is how long a connection lasts after its streams.
const lastWord = 5 * time.Second

// Flush implements http.Flusher.
func (u *upgrading) Flush() {
	if f, ok := u.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// Unwrap is for http.ResponseController.
func (u *upgrading) Unwrap() http.ResponseWriter { return u.ResponseWriter }
