// Package memory keeps what an auditor remembers from round to round, in a file or in a ConfigMap of the cluster.
package memory

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/nametag-boot/nametag/cluster/audit"
)

// A Store keeps a memory.
type Store interface {
	// Load gives an empty memory where nothing was saved yet. What is there and cannot be read is an error: whoever began anew
	// would take a name for the first that is the second.
	Load(ctx context.Context) (*audit.Memory, error)
	Save(ctx context.Context, m *audit.Memory) error
}

// File is a store in the file of that name.
type File string

// Load reads the file.
func (f File) Load(context.Context) (*audit.Memory, error) {
	b, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return &audit.Memory{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the state: %w", err)
	}
	return decode(b, string(f))
}

// Save replaces the file in one step: whoever reads it sees the old or the new one whole.
func (f File) Save(_ context.Context, m *audit.Memory) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(string(f)); err == nil && bytes.Equal(old, append(b, '\n')) {
		return nil
	}
	temp, err := os.CreateTemp(filepath.Dir(string(f)), ".nametag-state-")
	if err != nil {
		return fmt.Errorf("the state: %w", err)
	}
	defer os.Remove(temp.Name()) //nolint:errcheck // it has become the file
	_, err = temp.Write(append(b, '\n'))
	if err = errors.Join(err, temp.Sync(), temp.Chmod(0o644), temp.Close()); err != nil {
		return fmt.Errorf("the state: %w", err)
	}
	if err := os.Rename(temp.Name(), string(f)); err != nil {
		return fmt.Errorf("the state: %w", err)
	}
	return nil
}

func decode(b []byte, what string) (*audit.Memory, error) {
	m := &audit.Memory{}
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("the state in %s is damaged: %w; put it right or take it away (then renames up to now are not told)", what, err)
	}
	if m.Version > audit.MemoryVersion {
		return nil, fmt.Errorf("the state in %s is of version %d, and this program knows %d: use a newer one", what, m.Version, audit.MemoryVersion)
	}
	return m, nil
}

// ConfigMap is a store in a ConfigMap that the auditor owns, by server-side apply under one field manager.
type ConfigMap struct {
	Config          *rest.Config
	Namespace, Name string
}

// manager is the field manager that owns the memory.
const manager = "nametag-audit"

// patience bounds one question to the API server.
const patience = 30 * time.Second

// key is where in the ConfigMap it is.
const key = "memory.json"

var configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}

func (c *ConfigMap) client() (dynamic.ResourceInterface, error) {
	client, err := dynamic.NewForConfig(c.Config)
	if err != nil {
		return nil, err
	}
	return client.Resource(configMaps).Namespace(c.Namespace), nil
}

func (c *ConfigMap) what() string { return "ConfigMap " + c.Namespace + "/" + c.Name }

// Load reads the ConfigMap.
func (c *ConfigMap) Load(ctx context.Context) (*audit.Memory, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	o, err := client.Get(ctx, c.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return &audit.Memory{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the state in %s: %w", c.what(), err)
	}
	text, ok, err := unstructured.NestedString(o.Object, "data", key)
	if err != nil || !ok {
		return &audit.Memory{}, nil //nolint:nilerr // somebody else's ConfigMap without the key: it is ours to add
	}
	return decode([]byte(text), c.what())
}

// Save applies the ConfigMap.
func (c *ConfigMap) Save(ctx context.Context, m *audit.Memory) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client, err := c.client()
	if err != nil {
		return err
	}
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": c.Name, "namespace": c.Namespace},
		"data":     map[string]any{key: string(b)},
	}}
	if _, err := client.Apply(ctx, c.Name, o, metav1.ApplyOptions{FieldManager: manager}); err != nil {
		return fmt.Errorf("the state in %s: %w", c.what(), err)
	}
	return nil
}
