// Command healthtool answers probes as the test that asks wants it: over HTTP,
// HTTPS and gRPC, well or badly, by the files that there are in a directory. It
// is apart from podtool, which has to start at next to no cost.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// state holds the files that decide: a name that exists is healthy.
const state = "/dev/shm"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "healthtool:", err)
		os.Exit(1)
	}
}

// run serves HTTP on the first address and HTTPS on the second, until SIGTERM.
func run(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: healthtool HTTP-ADDRESS HTTPS-ADDRESS")
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	cert, err := selfSigned()
	if err != nil {
		return err
	}
	var plain http.Protocols
	plain.SetHTTP1(true)
	plain.SetUnencryptedHTTP2(true) // gRPC
	mux := handler()
	failed := make(chan error, 2)
	for _, s := range []*http.Server{
		{Addr: args[0], Handler: mux, Protocols: &plain, ReadHeaderTimeout: time.Minute},
		{Addr: args[1], Handler: mux, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}, ReadHeaderTimeout: time.Minute},
	} {
		l, err := net.Listen("tcp", s.Addr)
		if err != nil {
			return err
		}
		go func() {
			if s.TLSConfig != nil {
				failed <- s.ServeTLS(l, "", "")
				return
			}
			failed <- s.Serve(l)
		}()
	}
	fmt.Println("serving")
	select {
	case err := <-failed:
		return err
	case <-stop:
		return nil
	}
}

func healthy(name string) bool {
	_, err := os.Stat(filepath.Join(state, filepath.Base(name)))
	return err == nil
}

func handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/file/{name}", func(w http.ResponseWriter, r *http.Request) {
		if !healthy(r.PathValue("name")) {
			http.Error(w, "missing \x1b[31m"+r.PathValue("name"), http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("/code/{code}", func(w http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.PathValue("code"))
		w.WriteHeader(code)
	})
	mux.HandleFunc("/hang", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/flood", func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/to/{where...}", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.Query().Get("url"), http.StatusFound)
	})
	// What a probe says of itself: 200 only if every name=value holds.
	mux.HandleFunc("/headers", func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Host", r.Host)
		for name, want := range r.URL.Query() {
			if got := r.Header.Get(name); got != want[0] {
				http.Error(w, fmt.Sprintf("%s is %q", name, got), http.StatusBadRequest)
				return
			}
		}
	})
	mux.HandleFunc("POST /grpc.health.v1.Health/Check", check)
	return mux
}

// check answers a gRPC health check: SERVING for a service whose file exists,
// NOT_SERVING for one without, and NOT_FOUND for one called "unknown".
func check(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 4<<10))
	if err != nil || len(body) < 5 || r.Header.Get("Content-Type") != "application/grpc" {
		http.Error(w, "no gRPC", http.StatusUnsupportedMediaType)
		return
	}
	service := ""
	if message := body[5:]; len(message) > 2 { // field 1, a string shorter than 128
		service = string(message[2:])
	}
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status")
	if service == "unknown" {
		w.Header().Set("Grpc-Status", "5")
		return
	}
	status := byte(2)
	if healthy("grpc-" + strings.ToLower(service)) {
		status = 1
	}
	reply := make([]byte, 5, 7)
	binary.BigEndian.PutUint32(reply[1:], 2)
	_, _ = w.Write(append(reply, 0x08, status))
	w.Header().Set("Grpc-Status", "0")
}

// selfSigned makes a certificate that nobody trusts.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
