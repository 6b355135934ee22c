// Validates Kubernetes objects from standard input as the servers would that take them: decoded strictly, and Knative's
// with the defaults and the checks of its own admission webhooks. Prints what is wrong, one line each.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	eventing "knative.dev/eventing/pkg/apis/eventing/v1"
	"knative.dev/eventing/pkg/apis/feature"
	messaging "knative.dev/eventing/pkg/apis/messaging/v1"
	sources "knative.dev/eventing/pkg/apis/sources/v1"
	"knative.dev/pkg/apis"
	serving "knative.dev/serving/pkg/apis/serving/v1"
)

func main() {
	kinds := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		scheme.AddToScheme, serving.AddToScheme, eventing.AddToScheme, messaging.AddToScheme, sources.AddToScheme,
	} {
		if err := add(kinds); err != nil {
			panic(err)
		}
	}
	decoder := serializer.NewCodecFactory(kinds, serializer.EnableStrict).UniversalDeserializer()
	documents := yaml.NewYAMLReader(bufio.NewReader(os.Stdin))
	seen, wrong := 0, 0
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			panic(err)
		}
		seen++
		for _, fault := range faults(decoder, document) {
			wrong++
			fmt.Fprintln(os.Stderr, fault)
		}
	}
	fmt.Printf("%d objects, %d faults\n", seen, wrong)
	if wrong > 0 || seen == 0 {
		os.Exit(1)
	}
}

// What is wrong with one object. A kind that neither Kubernetes nor Knative has (of an operator, say) passes.
func faults(decoder runtime.Decoder, document []byte) []string {
	object, kind, err := decoder.Decode(document, nil, nil)
	if runtime.IsNotRegisteredError(err) {
		fmt.Printf("not checked: %v\n", kind)
		return nil
	}
	if err != nil {
		return []string{fmt.Sprintf("%v: %v\n%s", kind, err, document)}
	}
	usual, err := feature.NewFlagsConfigFromMap(nil) // what config-features of a fresh Knative says: delivery.timeout is on
	if err != nil {
		panic(err)
	}
	ctx := apis.WithinCreate(feature.ToContext(context.Background(), usual))
	if defaultable, ok := object.(apis.Defaultable); ok {
		defaultable.SetDefaults(ctx)
	}
	checked, ok := object.(apis.Validatable)
	if !ok {
		return nil
	}
	name := "?"
	if named, err := meta.Accessor(object); err == nil {
		name = named.GetName()
	}
	var found []string
	if fault := checked.Validate(ctx); fault != nil { // warnings too: what is insecure by default is a fault of ours
		found = append(found, fmt.Sprintf("%s '%s': %v", kind.Kind, name, fault))
	}
	return found
}
