//go:build linux

package controlplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nametag-boot/nametag/internal/testvm/cloud"
	"github.com/nametag-boot/nametag/internal/testvm/controlplane/machine"
	"github.com/nametag-boot/nametag/internal/testvm/netns"
	"github.com/nametag-boot/nametag/internal/testvm/qemu"
	"github.com/nametag-boot/nametag/internal/testvm/systems"
)

// A power is a virtual machine that runs.
type power struct {
	cancel context.CancelFunc
	ended  chan struct{}
	unplug func() error

	mu  sync.Mutex
	err error // with which it ended
}

func (p *power) off() {
	p.cancel()
	<-p.ended
	_ = p.unplug() //nolint:errcheck // the namespace takes it away
}

// BootMachine starts the server as a virtual machine, without KVM. debian is the root of a Debian, as hack/os-deps makes it: it boots,
// with its own systemd, and nametag's package in it where there is a policy. Empty: the kernel runs nametag as the first process of
// the initramfs where there is a policy, and else what comes behind it, which is shaped like a Talos: it takes a name from the
// kernel's command line, or invents one. It waits until this machine has a processor for it.
func (s *Server) BootMachine(ctx context.Context, nametag, debian string) error {
	if _, err := qemu.Find(qemu.AMD64); err != nil {
		return err
	}
	s.virtual = true
	s.config.Root, s.config.Nametag, s.config.Service = "", "", debian != ""
	disk := filepath.Join(s.config.Disk, "disk.ext4")
	if _, err := os.Stat(disk); err != nil {
		if err := s.install(ctx, disk, debian, nametag != ""); err != nil {
			return fmt.Errorf("install %s: %w", s.Name(), err)
		}
	}
	// The wire of the private network: a NIC of this process' network, whose far end is the machine's NIC.
	near, unplug, err := netns.Plug(s.ours())
	if err != nil {
		return err
	}
	if err := errors.Join(ip(ctx, "link", "set", s.ours(), "up"), ip(ctx, "route", "add", s.Address+"/32", "dev", s.ours(), "src", Gateway)); err != nil {
		return errors.Join(err, unplug())
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &power{cancel: cancel, ended: make(chan struct{}), unplug: unplug}
	s.power = p
	dir := filepath.Join(s.config.Disk, "boot-"+strconv.FormatInt(time.Now().UnixNano(), 10))
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the lab's
		return err
	}
	started := make(chan struct{}) // closed when there was a processor for the machine
	scenario := qemu.Scenario{
		OS:     system{guest: filepath.Join(s.config.Lab, "guest"), nametag: filepath.Join(s.config.Lab, "nametag"), policy: nametag, debian: debian},
		Cloud:  cloud.Config{Server: cloud.Server{InstanceID: strconv.FormatInt(s.ID, 10)}, Metadata: []cloud.Phase{{Until: 24 * time.Hour, Answer: cloud.Handler(s.serveMetadata)}}},
		NICs:   []qemu.NIC{{}, {Elsewhere: func(far cloud.Port) { join(near, far); close(started) }}},
		Disk:   disk,
		Memory: 3072, Timeout: 24 * time.Hour, Until: func(*qemu.Verdict) bool { return ctx.Err() != nil },
	}
	go func() {
		defer close(p.ended)
		v, err := qemu.Run(ctx, scenario, dir)
		if err == nil {
			err = errors.New(v.Log())
		}
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
	}()
	select {
	case <-started:
	case <-p.ended: // Ended and Said tell
	}
	return nil
}

// join carries frames between two ends of wires, until one of them is closed.
func join(a, b cloud.Port) {
	carry := func(from, to cloud.Port) {
		frame := make([]byte, 1<<16)
		for {
			n, err := from.ReadFrame(frame)
			if err == nil {
				err = to.WriteFrame(frame[:n])
			}
			if err != nil {
				_ = from.Close()
				_ = to.Close()
				return
			}
		}
	}
	go carry(a, b)
	go carry(b, a)
}

// install makes the machine's disk: what a server of namespaces sees, as one file system; or a Debian with the same in it.
func (s *Server) install(ctx context.Context, disk, debian string, nametag bool) error {
	if err := s.config.Write(s.config.Lab); err != nil {
		return err
	}
	tree := filepath.Join(s.config.Disk, "tree")
	if err := os.MkdirAll(tree, 0o755); err != nil { //nolint:gosec // the lab's
		return err
	}
	defer os.RemoveAll(tree)
	programs := s.cluster.programs
	commands := [][]string{{"cp", "-a", programs.Root + "/.", tree}}
	if debian != "" {
		commands = [][]string{
			{"cp", "-a", debian + "/.", tree},
			{"sh", "-c", "cp -a " + programs.Root + "/usr/bin/containerd* " + programs.Root + "/usr/bin/ctr " + tree + "/usr/bin/ && cp -a " + programs.Root + "/usr/sbin/runc " + tree + "/usr/sbin/"},
			// Nobody names the machine, and nobody but us touches its network.
			{"sh", "-c", "cd " + tree + "/etc && rm -rf hostname resolv.conf systemd/system/multi-user.target.wants/NetworkManager.service systemd/system/network-online.target.wants systemd/system/timers.target.wants"},
		}
	}
	commands = append(commands, [][]string{
		{"mkdir", "-p", tree + "/opt", tree + "/dev", tree + "/proc", tree + "/sys", tree + "/run", tree + "/tmp", tree + "/root", tree + "/var/log", tree + "/var/lib/etcd", tree + "/var/lib/kubelet", tree + machine.State},
		{"cp", "-a", programs.Kube, tree + machine.Kube},
		{"cp", "-a", s.config.Lab, tree + machine.Dir},
	}...)
	for _, args := range commands {
		if err := command(ctx, args...); err != nil {
			return err
		}
	}
	if debian != "" {
		if err := service(tree); err != nil {
			return err
		}
		if nametag {
			repository, err := repository(ctx)
			if err == nil {
				err = systems.Install(repository, filepath.Join(s.config.Lab, "nametag"), tree)
			}
			if err != nil {
				return err
			}
		}
	}
	return errors.Join(command(ctx, "truncate", "-s", "4G", disk), command(ctx, "/sbin/mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1", "-d", tree, disk))
}

func command(ctx context.Context, args ...string) error {
	if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil { //nolint:gosec // the lab's own
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// service has systemd start the machine's services, where a kubelet's unit would stand: after nametag's, where that is there.
func service(tree string) error {
	const unit = `[Unit]
After=nametag.service
[Service]
Environment=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ExecStart=` + machine.Dir + `/guest service
Delegate=yes
[Install]
WantedBy=multi-user.target
`
	wants := filepath.Join(tree, "etc/systemd/system/multi-user.target.wants")
	return errors.Join(
		os.MkdirAll(wants, 0o755), //nolint:gosec // a machine's
		os.WriteFile(filepath.Join(tree, "etc/systemd/system/lab.service"), []byte(unit), 0o644), //nolint:gosec // a machine's
		os.Symlink("../lab.service", filepath.Join(wants, "lab.service")),
		os.WriteFile(filepath.Join(tree, "etc/fstab"), []byte("/dev/vda / ext4 defaults 0 0\n"), 0o644), //nolint:gosec // a machine's
	)
}

// shown is a file that a virtual machine shows, "" where it does not.
func (s *Server) shown(name string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Address+machine.Show+"/"+name, http.NoBody)
	if err != nil {
		return ""
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return ""
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return ""
	}
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return ""
	}
	return string(text)
}

// A system is what the machines boot.
type system struct{ guest, nametag, policy, debian string }

// Initramfs makes it.
func (o system) Initramfs(_ context.Context, d qemu.Deps) (qemu.Initramfs, error) {
	if o.debian != "" {
		return o.itsOwn(d)
	}
	unlock, err := d.Lock()
	if err != nil {
		return qemu.Initramfs{}, err
	}
	defer unlock()
	modules, err := d.Modules("virtio_pci", "virtio_net", "virtio_blk", "overlay")
	if err != nil {
		return qemu.Initramfs{}, err
	}
	files := qemu.Files{"init": {From: o.guest, Mode: 0o755}, "dev/console": {Device: [2]uint32{5, 1}, Mode: 0o600}}
	args := []string{"talos.platform=hcloud"}
	if o.policy != "" {
		files["init"], files["init.next"] = qemu.File{From: o.nametag, Mode: 0o755}, files["init"]
		args = append(args, "talos.hostname.wait="+o.policy)
	}
	files.Add(modules.Tree("lib/modules"))
	for i, name := range modules.Order() {
		files[fmt.Sprintf("drivers/%02d-%s.ko", i, name)] = qemu.File{From: modules.File(name), Mode: 0o644}
	}
	archive, err := d.Initramfs(files)
	return qemu.Initramfs{Archive: archive, Whole: true, Args: args}, err
}

// itsOwn is the kernel and the initramfs that a Debian has.
func (o system) itsOwn(d qemu.Deps) (qemu.Initramfs, error) {
	archive, err := filepath.Glob(filepath.Join(o.debian, "boot/initrd.img-*"))
	if err != nil || len(archive) != 1 {
		return qemu.Initramfs{}, errors.Join(fmt.Errorf("%d initramfs in %s/boot", len(archive), o.debian), err)
	}
	d.Root = o.debian
	kernel, err := d.Kernel()
	args := []string{"root=/dev/vda", "rw", "rootfstype=ext4", "net.ifnames=0", "systemd.show_status=no", "apparmor=0", "audit=0"}
	if o.policy != "" {
		args = append(args, "nametag.wait="+o.policy)
	}
	return qemu.Initramfs{Archive: archive[0], Whole: true, Kernel: kernel, Args: args}, err
}
