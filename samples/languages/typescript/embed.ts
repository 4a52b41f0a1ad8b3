// One image in, one feature vector out: prints a JSON object with the vector and its version.
//
//     node built/embed.js HOST:PORT MODEL IMAGE [CA.pem]
//
// With a CA file the connection uses TLS. The messages come from the repository's protos/ folder.
import * as fs from "node:fs";
import * as path from "node:path";
import * as grpc from "@grpc/grpc-js";
import * as loader from "@grpc/proto-loader";

const PROTOS = path.resolve(__dirname, "../../../../protos");
const DEADLINE_MS = 10_000;
const STATUS = ["ok", "empty", "unsupported", "too_large", "corrupt"];

// gRPC itself tries a call again while the server starts or is replaced. Predict may be repeated.
const SERVICE_CONFIG = {
  methodConfig: [
    {
      name: [{ service: "tensorflow.serving.PredictionService" }],
      retryPolicy: {
        maxAttempts: 4,
        initialBackoff: "0.2s",
        maxBackoff: "2s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE"],
      },
    },
  ],
};

interface Tensor {
  float_val: number[];
  int_val: number[];
  tensor_content: Buffer;
}

interface PredictResponse {
  model_spec: { version: { value: string } };
  outputs: Record<string, Tensor>;
}

// A server may send numbers as a list or as the bytes of little-endian values.
function floats(tensor: Tensor): number[] {
  const bytes = tensor.tensor_content;
  if (bytes.length === 0) return tensor.float_val;
  return Array.from({ length: bytes.length / 4 }, (_, at) => bytes.readFloatLE(4 * at));
}

function integers(tensor: Tensor): number[] {
  const bytes = tensor.tensor_content;
  if (bytes.length === 0) return tensor.int_val;
  return Array.from({ length: bytes.length / 4 }, (_, at) => bytes.readInt32LE(4 * at));
}

function connect(target: string, ca?: string): grpc.Client {
  const file = "tensorflow_serving/apis/prediction_service.proto";
  const options = { includeDirs: [PROTOS], keepCase: true, longs: String, enums: String, defaults: true };
  const definition = loader.loadSync(file, options);
  const api = grpc.loadPackageDefinition(definition) as any;
  const credentials = ca
    ? grpc.credentials.createSsl(fs.readFileSync(ca))
    : grpc.credentials.createInsecure();
  return new api.tensorflow.serving.PredictionService(target, credentials, {
    "grpc.service_config": JSON.stringify(SERVICE_CONFIG),
    "grpc.max_receive_message_length": -1,
  });
}

function predict(client: any, model: string, image: Buffer): Promise<PredictResponse> {
  const request = {
    model_spec: { name: model, signature_name: "serving_default" },
    inputs: {
      image_bytes: {
        dtype: "DT_STRING",
        tensor_shape: { dim: [{ size: "1" }] },
        string_val: [image],
      },
    },
  };
  return new Promise((resolve, reject) => {
    const deadline = Date.now() + DEADLINE_MS;
    client.Predict(request, { deadline }, (error: grpc.ServiceError | null, reply: PredictResponse) =>
      error ? reject(error) : resolve(reply),
    );
  });
}

async function main(): Promise<void> {
  const [target, model, image, ca] = process.argv.slice(2);
  const client = connect(target, ca);
  try {
    const reply = await predict(client, model, fs.readFileSync(image));
    const status = integers(reply.outputs.status)[0];
    if (status !== 0) throw new Error(`${image}: ${STATUS[status] ?? status}`);
    const vector = floats(reply.outputs.features);
    console.log(JSON.stringify({ version: Number(reply.model_spec.version.value), vector }));
  } finally {
    client.close();
  }
}

main().catch((error: Error) => {
  console.error(error.message);
  process.exitCode = 1;
});
