package wire_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"nodeagent/test/machine/guest/wire"
)

func frames(t *testing.T, b []byte) []wire.Frame {
	t.Helper()
	r := wire.NewReader(bytes.NewReader(b))
	var all []wire.Frame
	for {
		f, err := r.Read()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, f)
	}
}

// TestResync: whatever a writer that died left of a frame, the next writer's
// padded first frame is read.
func TestResync(t *testing.T) {
	var whole bytes.Buffer
	w := wire.NewWriter(&whole)
	if err := w.Write(wire.Frame{Kind: wire.Data, Stream: 7, Payload: bytes.Repeat([]byte{0xA9, 'n', 'a', 0x1F}, wire.MaxPayload/4)}); err != nil {
		t.Fatal(err)
	}
	for _, cut := range []int{1, 3, 4, 10, 16, 17, 18, 100, wire.MaxPayload, whole.Len() - 1} {
		b := bytes.NewBuffer(bytes.Clone(whole.Bytes()[:cut]))
		w := wire.NewWriter(b)
		if err := errors.Join(w.Pad(), w.WriteJSON(wire.Boot, 0, wire.Booted{ID: "b"}), w.Write(wire.Frame{Kind: wire.EOF, Stream: 9})); err != nil {
			t.Fatal(err)
		}
		got := frames(t, b.Bytes())
		if n := len(got); n < 2 || got[n-2].Kind != wire.Boot || got[n-1].Kind != wire.EOF || got[n-1].Stream != 9 {
			t.Errorf("cut after %d bytes: read %d frames", cut, n)
		}
	}
}

func TestWriteTooMuch(t *testing.T) {
	if wire.NewWriter(io.Discard).Write(wire.Frame{Payload: make([]byte, wire.MaxPayload+1)}) == nil {
		t.Error("a frame that no reader takes was written")
	}
}

// FuzzReader: no bytes make the reader fail or promise more than is there, and a
// whole frame behind them is found once they are padded.
func FuzzReader(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0xA9, 'n', 'a', 0x1F, 4, 0, 0, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF})
	f.Fuzz(func(t *testing.T, b []byte) {
		buf := bytes.NewBuffer(bytes.Clone(b))
		w := wire.NewWriter(buf)
		if err := errors.Join(w.Pad(), w.Write(wire.Frame{Kind: wire.Exit, Stream: 42, Payload: []byte("end")})); err != nil {
			t.Fatal(err)
		}
		got := frames(t, buf.Bytes())
		if n := len(got); n == 0 || got[n-1].Stream != 42 || string(got[n-1].Payload) != "end" {
			t.Errorf("the last of %d frames is not the one that was written", n)
		}
	})
}
