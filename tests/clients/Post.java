// Java's own client as it is by default: over clear text it asks for an upgrade to HTTP/2 with every request.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;

class Post {
    public static void main(String[] arguments) throws Exception {
        var client = HttpClient.newHttpClient();
        for (int number = 0; number < 3; number++) {
            var request = HttpRequest.newBuilder(URI.create(arguments[0]))
                    .header("Content-Type", "application/json")
                    .POST(BodyPublishers.ofString(arguments[1]))
                    .build();
            System.out.println(client.send(request, BodyHandlers.ofString()).statusCode());
        }
    }
}
