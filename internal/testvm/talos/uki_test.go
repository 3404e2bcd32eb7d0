//go:build linux

package talos_test

import (
	"context"
	"io"
	"os"
	"testing"
	"time"

	"github.com/nametag-boot/nametag/internal/image/initramfs"
	"github.com/nametag-boot/nametag/internal/image/uki"
	"github.com/nametag-boot/nametag/internal/testvm/helpertest"
	"github.com/nametag-boot/nametag/internal/testvm/qemu"
	"github.com/nametag-boot/nametag/internal/testvm/talos"
)

// The way that Talos 1.10 and later boots: a unified kernel image, started by UEFI. It is made without nametag, of
// systemd's stub, Debian's kernel and the OS's initramfs; then edited; and boots with nametag in front.
func TestAnEditedUnifiedKernelImageBootsWithTheHelper(t *testing.T) {
	t.Parallel()
	for _, arch := range []qemu.Arch{qemu.AMD64, qemu.ARM64} {
		t.Run(string(arch), func(t *testing.T) {
			t.Parallel()
			helper := helpertest.Binary(t, string(arch))
			v := qemu.Boot(t, qemu.Scenario{
				Arch: arch, OS: talos.OS{Line: talos.V1_12}, Memory: 640,
				Image: talos.UKI(func(ctx context.Context, image string) error {
					_, err := uki.EditFile(ctx, image, image, uki.Edit{
						CommandLine: uki.Arguments{Append: waiting}.Apply,
						Initramfs:   withHelper(helper, initramfs.Options{}),
					})
					return err
				}),
				Cloud: late, Timeout: 3 * time.Minute,
			})
			t.Logf("%v", v.Took)
			onlyEver(t, v)
		})
	}
}

// withHelper puts the helper in front of the OS's own first process.
func withHelper(name string, o initramfs.Options) uki.InitramfsEditor {
	return func(ctx context.Context, out io.Writer, in *io.SectionReader) error {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return err
		}
		helper, err := initramfs.NewHelper(f, st.Size())
		if err != nil {
			return err
		}
		image, err := initramfs.Read(ctx, in, in.Size(), nil, nil)
		if err != nil {
			return err
		}
		_, err = image.Add(ctx, out, helper, o)
		return err
	}
}
