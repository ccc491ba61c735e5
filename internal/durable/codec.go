package durable

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// The header, big endian: magic (8), format (2), zero (2), version of the
// payload (4), length of the payload (8), CRC32C of all before it and of the
// payload (4).
const (
	magic      = "NDAGENT\n"
	format     = 1
	headerSize = 28
)

// encode puts the header in front of payload.
func encode(version uint32, payload []byte) []byte {
	b := make([]byte, headerSize, headerSize+len(payload))
	copy(b, magic)
	binary.BigEndian.PutUint16(b[8:], format)
	binary.BigEndian.PutUint32(b[12:], version)
	binary.BigEndian.PutUint64(b[16:], uint64(len(payload)))
	b = append(b, payload...)
	binary.BigEndian.PutUint32(b[24:], sum(b))
	return b
}

// decode checks a whole file and returns its payload, which shares b's memory.
func decode(b []byte) (version uint32, payload []byte, err error) {
	if len(b) < headerSize {
		return 0, nil, fmt.Errorf("%d bytes are shorter than the header", len(b))
	}
	if string(b[:8]) != magic {
		return 0, nil, fmt.Errorf("magic is %q", b[:8])
	}
	if f := binary.BigEndian.Uint16(b[8:]); f != format {
		return 0, nil, fmt.Errorf("format %d is unknown", f)
	}
	if n := binary.BigEndian.Uint64(b[16:]); n != uint64(len(b)-headerSize) {
		return 0, nil, fmt.Errorf("length says %d bytes, the file holds %d", n, len(b)-headerSize)
	}
	if want, got := binary.BigEndian.Uint32(b[24:]), sum(b); want != got {
		return 0, nil, fmt.Errorf("checksum is %08x, the content has %08x", want, got)
	}
	return binary.BigEndian.Uint32(b[12:]), b[headerSize:], nil
}

func sum(b []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(b[:24], table), table, b[headerSize:])
}
