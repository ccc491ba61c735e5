package bed

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/leases"

	"nodeagent/test/image"
)

// podtool is built once a process.
var podtool = func() func(context.Context) ([]byte, error) {
	var mu sync.Mutex
	var built []byte
	return func(ctx context.Context) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		if built != nil {
			return built, nil
		}
		root, err := ModuleRoot(ctx)
		if err != nil {
			return nil, err
		}
		b, err := image.Podtool(ctx, root)
		if err == nil {
			built = b
		}
		return b, err
	}
}()

// ImageTar returns image.Example and image.Shell as a tar of an OCI layout.
func ImageTar(ctx context.Context) ([]byte, error) {
	tool, err := podtool(ctx)
	if err != nil {
		return nil, err
	}
	shell, err := image.ShellSpec(tool)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	err = image.Write(&buf, image.ExampleSpec(tool), shell)
	return buf.Bytes(), err
}

// Import puts image.Example and image.Shell into the bed's containerd and
// unpacks them.
func (b *Bed) Import(ctx context.Context) error {
	data, err := ImageTar(ctx)
	if err != nil {
		return err
	}
	return b.Load(ctx, bytes.NewReader(data))
}

// Load puts the images of a tar into the bed's containerd and unpacks them.
func (b *Bed) Load(ctx context.Context, tar io.Reader) error {
	c, err := b.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	made, err := c.Import(ctx, tar)
	if err != nil {
		return fmt.Errorf("import images: %w", err)
	}
	for _, m := range made {
		if err := containerd.NewImage(c, m).Unpack(ctx, ""); err != nil {
			return fmt.Errorf("unpack %s: %w", m.Name, err)
		}
	}
	return collect(ctx, c)
}

// Collect lets containerd throw away now what nothing refers to, such as the snapshot of a
// container whose removal a daemon that was killed had begun.
func (b *Bed) Collect(ctx context.Context) error {
	c, err := b.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	return collect(ctx, c)
}

// collect lets containerd throw away what nothing refers to (the layout's index
// is one), so that it does not go later, in the middle of a test.
func collect(ctx context.Context, c *containerd.Client) error {
	l, err := c.LeasesService().Create(ctx, leases.WithRandomID())
	if err != nil {
		return err
	}
	return c.LeasesService().Delete(ctx, l, leases.SynchronousDelete)
}
