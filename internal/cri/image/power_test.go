package image

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"nodeagent/internal/test/env"
	"nodeagent/test/bed"
)

// TestPowerCut cuts the power of containerd's disk right after an image was
// pulled, and in the middle of pulls: what Pull returned is there, and whatever
// counts as unpacked has every byte of every file. containerd itself does not
// sync what it unpacks, and a program of no bytes would then be run for ever.
// IMAGE_CUTS sets the number of cuts, IMAGE_SEED repeats a row of moments.
func TestPowerCut(t *testing.T) {
	cuts, seed := env.Number(t, "IMAGE_CUTS", 8), env.Seed(t, "IMAGE_SEED")
	b := bed.Containerd(t, bed.Options{Stock: true})
	rng := rand.New(rand.NewPCG(seed, 0))
	must(t, b.Kill())
	disk := b.Disk(t.Context(), t, "root", 96<<20)
	must(t, b.StartAgain(t.Context()))
	reg := newRegistry(t, b)
	want, acked := map[string]map[string]string{}, map[string]bool{}
	for cut := range int(cuts) {
		ref, files := fmt.Sprintf("%s/app:v%d", reg.host, cut), someFiles(rng)
		reg.push("v"+strconv.Itoa(cut), build(runtime.GOARCH, ocispec.ImageConfig{}, files[:]...))
		want[ref] = map[string]string{}
		for _, layer := range files {
			for name, text := range layer {
				want[ref][name] = text
			}
		}
		var after time.Duration // 0: when the pull has returned
		if cut%2 == 1 {
			after = time.Duration(rng.Int64N(int64(60 * time.Millisecond)))
		}
		acked[ref] = pullAndCut(t, b, disk, ref, after)
		must(t, disk.Remount(t.Context()))
		must(t, b.StartAgain(t.Context()))
		checkImages(t, b, want, acked)
		if t.Failed() {
			t.Fatalf("cut %d, %s after the start of the pull, acknowledged: %t", cut, after, acked[ref])
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// someFiles are the files of three layers; the second is like no other's, the
// first is of all images.
func someFiles(rng *rand.Rand) (layers [3]map[string]string) {
	for i := range layers {
		layers[i] = map[string]string{}
		text := "base"
		if i > 0 {
			text = strconv.FormatUint(rng.Uint64(), 36)
		}
		for j := range 20 {
			layers[i][fmt.Sprintf("layer%d-%d", i, j)] = strings.Repeat(text, 50+j*100)
		}
	}
	return layers
}

// powerStore is the store of a daemon that started since containerd did.
func powerStore(t *testing.T, b *bed.Bed) (s *Store, end func() error) {
	t.Helper()
	client, err := b.Dial()
	must(t, err)
	s, err = New(Config{Client: client, DockerConfigs: []string{}})
	must(t, err)
	return s, client.Close
}

// pullAndCut cuts the power some time after the start of a pull, or after its
// end, and tells whether it had been acknowledged.
func pullAndCut(t *testing.T, b *bed.Bed, disk *bed.Disk, ref string, after time.Duration) (acked bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	store, end := powerStore(t, b)
	defer end()
	done := make(chan error, 1)
	go func() {
		_, err := store.Pull(ctx, ref, nil, nil)
		done <- err
	}()
	if after > 0 {
		select {
		case err := <-done:
			acked = err == nil
		case <-time.After(after):
		}
	} else {
		must(t, <-done)
		acked = true
	}
	must(t, disk.CutPower())
	must(t, b.Kill())
	if !acked {
		cancel()
		<-done
	}
	return acked
}

// checkImages looks at the store as a daemon that starts does.
func checkImages(t *testing.T, b *bed.Bed, want map[string]map[string]string, acked map[string]bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	store, end := powerStore(t, b)
	defer end()
	for ref, files := range want {
		img, err := store.Get(ctx, ref)
		if !acked[ref] && (IsNotFound(err) || err == nil && !img.Unpacked) {
			continue
		}
		if err != nil || !img.Unpacked {
			t.Errorf("%s was acknowledged: unpacked %t, %v", ref, img.Unpacked, err)
			continue
		}
		err = store.Rootfs(ctx, img, func(dir string) error { return sameFiles(dir, files) })
		if err != nil {
			t.Errorf("%s, acknowledged %t: %v", ref, acked[ref], err)
		}
	}
}

func sameFiles(dir string, want map[string]string) error {
	var errs []error
	for name, text := range want {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			errs = append(errs, err)
		} else if string(got) != text {
			errs = append(errs, fmt.Errorf("%s holds %d bytes that are not the %d of the image", name, len(got), len(text)))
		}
	}
	return errors.Join(errs...)
}
