package server

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Connections of a port without authentication: whoever asks has one for a moment.
const maxGuests = 128

// ServePort answers on an address until ctx ends, nobody for long and few at once:
// where there are too many, the oldest of the address that has most is closed. An
// error says that it cannot; opened, when not nil, is called when it can.
func ServePort(ctx context.Context, addr string, h http.Handler, opened func()) error {
	var c net.ListenConfig
	l, err := c.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("open port %s: %w", addr, err)
	}
	if opened != nil {
		opened()
	}
	return serveGuests(ctx, l, h, headerTimeout)
}

func serveGuests(ctx context.Context, l net.Listener, h http.Handler, limit time.Duration) error {
	guests := newConns(maxGuests, maxGuests)
	guests.Listener = l
	return serve(ctx, &http.Server{
		Handler: h, ReadHeaderTimeout: limit, ReadTimeout: limit, WriteTimeout: writeTimeout,
		IdleTimeout: idleConn, MaxHeaderBytes: maxHeader,
	}, guests)
}
