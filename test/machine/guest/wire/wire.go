// Package wire owns the bytes between a test and the program that serves it in a
// guest: frames on a virtio-serial port, many streams on one wire. Both ends may
// vanish in the middle of a frame (a reset guest, a killed test), so a reader
// looks for the next whole header instead of trusting the position it is at.
//
// A Reader and a Writer are each for one goroutine at a time.
package wire

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
)

// Kind says what a frame is.
type Kind byte

// Frames. Those of one stream carry its number; the host chooses it, and never
// the same one twice.
const (
	Hello Kind = iota + 1 // host: Greeting; the guest answers with Boot
	Boot                  // guest: Booted; also sent unasked when the guest's end starts
	Start                 // host: Request, which opens a stream
	Data                  // host: standard input or a file's content; guest: standard output
	EOF                   // host: no more Data of this stream
	Kill                  // host: end the stream's command by SIGKILL
	Exit                  // guest: Ended, the last frame of a stream
)

// MaxPayload is the most that one frame carries.
const MaxPayload = 32 << 10

// Greeting is the payload of Hello.
type Greeting struct {
	Time int64  // the host's clock, nanoseconds since 1970
	Seed []byte // for the guest's random numbers: two guests of one snapshot must differ
}

// Booted is the payload of Boot.
type Booted struct {
	ID string // the kernel's boot id
}

// Request is the payload of Start: a command, or a file to write or to read.
type Request struct {
	Argv []string `json:",omitempty"`
	Env  []string `json:",omitempty"` // added to the guest's own
	Dir  string   `json:",omitempty"`

	Put  string `json:",omitempty"` // path that Data is written to
	Mode uint32 `json:",omitempty"`
	Get  string `json:",omitempty"` // path that is sent as Data
}

// Ended is the payload of Exit.
type Ended struct {
	Code  int    // of a command; 128+n for signal n
	Error string `json:",omitempty"` // it could not be started, written or read
}

// Frame is one message.
type Frame struct {
	Kind    Kind
	Stream  uint32
	Payload []byte
}

const headerSize = 17

var magic = [4]byte{0xA9, 'n', 'a', 0x1F}

// Writer writes frames.
type Writer struct {
	w   io.Writer
	buf []byte
}

// NewWriter returns a Writer of w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Pad writes as many zeros as a frame can be long, so that a reader which still
// waits for the rest of a frame that will never come gets past it.
func (w *Writer) Pad() error {
	_, err := w.w.Write(make([]byte, headerSize+MaxPayload))
	return err
}

// Write writes one frame of at most MaxPayload bytes.
func (w *Writer) Write(f Frame) error {
	if len(f.Payload) > MaxPayload {
		return fmt.Errorf("write a frame: %d bytes are more than %d", len(f.Payload), MaxPayload)
	}
	b := append(w.buf[:0], magic[:]...)
	b = append(b, byte(f.Kind))
	b = binary.BigEndian.AppendUint32(b, f.Stream)
	b = binary.BigEndian.AppendUint32(b, uint32(len(f.Payload)))
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	w.buf = append(b, f.Payload...)
	_, err := w.w.Write(w.buf)
	return err
}

// WriteJSON writes a frame with v as its payload.
func (w *Writer) WriteJSON(k Kind, stream uint32, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return w.Write(Frame{Kind: k, Stream: stream, Payload: b})
}

// Reader reads frames.
type Reader struct{ r *bufio.Reader }

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, 2*(headerSize+MaxPayload))}
}

// Read returns the next whole frame, and skips everything that is none.
func (r *Reader) Read() (Frame, error) {
	for {
		h, err := r.r.Peek(headerSize)
		if err != nil {
			return Frame{}, err
		}
		kind, stream, size, ok := parse(h)
		if !ok {
			if _, err := r.r.Discard(1); err != nil {
				return Frame{}, err
			}
			continue
		}
		if _, err := r.r.Discard(headerSize); err != nil {
			return Frame{}, err
		}
		f := Frame{Kind: kind, Stream: stream, Payload: make([]byte, size)}
		_, err = io.ReadFull(r.r, f.Payload)
		return f, err
	}
}

func parse(h []byte) (kind Kind, stream, size uint32, ok bool) {
	if [4]byte(h[:4]) != magic || crc32.ChecksumIEEE(h[:13]) != binary.BigEndian.Uint32(h[13:17]) {
		return 0, 0, 0, false
	}
	size = binary.BigEndian.Uint32(h[9:13])
	return Kind(h[4]), binary.BigEndian.Uint32(h[5:9]), size, size <= MaxPayload
}
